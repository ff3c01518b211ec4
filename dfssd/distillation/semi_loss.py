"""The YOLO loss on labeled and pseudo-labeled images: ignore zones, box weights, a normalizer for each kind.

The parts are those of Ultralytics' detection criterion: assigner, box overlap, distribution loss, gains, class weights.
The loss is put together here, in one pass over the whole batch, since its sums differ between the two kinds of images.
Boxes are decoded with a gradient at the assigned anchors only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import bbox2dist, dist2bbox

from dfssd.distillation.grid import Grid, grid
from dfssd.distributed import group


@dataclass(frozen=True)
class Coverage:
    """Which classes boxes speak of, where new classes are added to a detector.

    Attributes:
        new_only: Labels cover the new classes only: those that the teacher does not know.
        old_boxes: On labeled images, too, the boxes of the teacher are the labels of the classes that it knows.
        unlabeled_old: Unlabeled images show no defect of a new class.
    """

    new_only: bool
    old_boxes: bool
    unlabeled_old: bool


PLAIN = Coverage(new_only=False, old_boxes=False, unlabeled_old=False)
"""Labels cover all classes, boxes of the teacher all that it knows."""


class SemiDetectionLoss:
    """The loss of Ultralytics' criterion of one model, with sums of their own for labeled and pseudo-labeled images.

    With the target score t_i of anchor i from the assigner and the weight w_i in (0, 1] of the box that it is assigned
    to (1 for true boxes and where there is none), each part of the loss of a kind of images is::

        sum_i w_i l_i(t_i) / max(1, sum_i t_i)

    so a doubtful box counts less, its target score is not lowered, and the background is not affected. Each kind has
    its own normalizer, so that neither the number nor the scores of pseudo boxes change the weight of a true box. Where
    several processes train together, the sums of a normalizer go over the images of all of them. An
    ignored anchor counts only if it has a target. Where new classes are added to a detector, each kind covers its own
    classes only: the labels those of the new ones, where old defects in the same images are not labeled, and the
    teacher's boxes the old ones. With boxes of the teacher beside the labels, labeled images cover all classes; what is
    ignored there is so for the old ones alone, since nothing is missing among the labels. The same holds for unlabeled
    images that are known to show no new class.
    """

    def __init__(self, criterion: Any, *, known: int | None = None, coverage: Coverage = PLAIN):
        """Read the parts of ``criterion``, which is left as it is: the validation uses it.

        Args:
            criterion: What ``model.init_criterion()`` returned.
            known: The number of classes that the teacher knows, the first ones; None: all.
            coverage: Which of them, and of the others, labels and boxes of the teacher cover.
        """
        self.criterion = criterion
        heads = [getattr(criterion, name, None) for name in ("one2many", "one2one")]  # of an end-to-end model
        self.branches: list[Any] = [part for part in (criterion, *heads) if hasattr(part, "bce")]
        first = self.branches[0]
        self.classes, self.names = first.nc, list(first.loss_names)
        known = self.classes if known is None else known
        every, new, none = range(self.classes), range(known, self.classes), range(0)
        by_labels = new if coverage.new_only else every
        # each of labeled, and of unlabeled images
        self.covered = (every if coverage.old_boxes else by_labels, every if coverage.unlabeled_old else range(known))
        self.complete = (by_labels if coverage.old_boxes else none, new if coverage.unlabeled_old else none)
        self.gains = np.array([first.hyp.box, first.hyp.cls, first.hyp.dfl], np.float32)
        self.strides = tuple(int(s) for s in first.stride.tolist())

    def rows(self, n: int, labeled: int, unsup_weight: float) -> dict[str, np.ndarray]:
        """What the loss needs on the device beside the boxes.

        Args:
            n: Images in the batch.
            labeled: The labeled ones among them, which come first.
            unsup_weight: Factor on the loss of the other ones.

        Returns:
            ``kinds`` (2, n), 1 where an image is labeled, and where it is not; ``gains`` (2, 3), of box, class and
            distribution loss for each kind; ``cover`` (n, nc, 1), 1 for covered classes, absent if all are;
            ``complete`` (n, nc, 1), 1 for classes that count at every anchor, absent if none do.
        """
        is_labeled = np.arange(n) < labeled
        weights = np.array([[1.0], [unsup_weight]], np.float32)
        found = {"kinds": np.stack([is_labeled, ~is_labeled]).astype(np.float32), "gains": weights * self.gains}
        kind = np.where(is_labeled, 0, 1)
        if any(len(classes) < self.classes for classes in self.covered):
            found["cover"] = self._table(self.covered)[kind]
        if any(self.complete):
            found["complete"] = self._table(self.complete)[kind]
        return found

    def _table(self, classes: tuple[range, range]) -> np.ndarray:
        """1 for the classes of each kind of image, (2, nc, 1) float32."""
        table = np.zeros((2, self.classes, 1), np.float32)
        for kind, own in enumerate(classes):
            table[kind, own] = 1
        return table

    def __call__(
        self, heads: Sequence[Mapping[str, Tensor]], rows: Mapping[str, Tensor], levels: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Loss of both kinds, a mean over their images.

        Args:
            heads: Raw outputs of the head, or of both heads of an end-to-end model: ``boxes`` and ``scores``. They may
                have more images than ``rows``; the last ones are left out then.
            rows: On the device, :meth:`rows` and :func:`dfssd.distillation.targets.padded_targets`.
            levels: (height, width) of each level [cells].

        Returns:
            The loss (2, 3): kinds times box, class and distribution loss; what is logged of it, the same but for an
            end-to-end model, where it is that of the one-to-one head; and the ignored anchors (n, A), None without any.
        """
        device = heads[0]["boxes"].device
        anchors = grid(tuple(levels), self.strides, device)
        with torch.autocast(device.type, enabled=False):
            ignored = anchors.inside(rows["low"], rows["high"]) if "low" in rows else None
            losses = [
                self._branch(branch, head, rows, anchors, ignored)
                for branch, head in zip(self.branches, heads, strict=True)
            ]
        if len(losses) == 1:
            return losses[0], losses[0].detach(), ignored
        many, one = losses
        return many * self.criterion.o2m + one * self.criterion.o2o, one.detach(), ignored

    def _branch(
        self, branch: Any, head: Mapping[str, Tensor], rows: Mapping[str, Tensor], anchors: Grid, ignored: Tensor | None
    ) -> Tensor:
        """Loss (2, 3) of one head."""
        kinds = rows["kinds"]
        raw, logits = (_first(head[key], kinds.shape[1]) for key in ("boxes", "scores"))
        logits = logits.float()
        boxes, targets, foreground, index = self._assign(branch, logits, raw, rows, anchors)
        mass = targets.sum(-1)  # (n, A) target score
        weight = None
        if "weights" in rows:
            weight = torch.where(foreground, rows["weights"].gather(1, index.long()), 1.0)
        counted = weight
        if ignored is not None:
            left_out = ignored & (mass <= 0)
            counted = (~left_out).float() if weight is None else weight.masked_fill(left_out, 0.0)
        factor = None if counted is None else counted[:, None]
        if factor is not None and "complete" in rows:
            factor = torch.maximum(factor, rows["complete"])
        for by_class in (rows.get("cover"), branch.class_weights):
            if by_class is not None:
                by_class = by_class.view(-1, self.classes, 1)
                factor = by_class if factor is None else factor * by_class
        wanted = targets.transpose(1, 2).to(logits.dtype)
        bce = F.binary_cross_entropy_with_logits(logits, wanted, weight=factor, reduction="none")
        image, anchor = foreground.nonzero(as_tuple=True)
        scale = mass[image, anchor]
        if weight is not None:
            scale = scale * weight[image, anchor]
        overlap, spread = self._box_losses(branch, raw, boxes, image, anchor, anchors)
        at_anchors = torch.stack([overlap * scale, spread * scale])
        of_boxes = (kinds[:, None, image] * at_anchors).sum(-1)  # (2, 2)
        of_images = torch.stack([bce.sum((1, 2)), mass.sum(1)])
        of_classes, total = (kinds[:, None] * of_images).sum(-1).unbind(1)
        sums = torch.stack([of_boxes[:, 0], of_classes, of_boxes[:, 1]], 1)
        return sums / group.normalizer(total)[:, None] * rows["gains"]

    def _assign(
        self, branch: Any, logits: Tensor, raw: Tensor, rows: Mapping[str, Tensor], anchors: Grid
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ultralytics' assignment: boxes (n, A, 4) [px], scores (n, A, nc), whether there is one, its number (n, A)."""
        with torch.no_grad():
            decoded = anchors.corners + anchors.reach * distances(raw.detach(), branch.reg_max, branch.proj)
            _, boxes, targets, foreground, index = branch.assigner(
                logits.detach().sigmoid().transpose(1, 2),
                decoded.transpose(1, 2),
                anchors.centers,
                rows["gt_labels"],
                rows["gt_bboxes"],
                rows["mask_gt"],
            )
        return boxes, targets, foreground, index

    @staticmethod
    def _box_losses(
        branch: Any, raw: Tensor, boxes: Tensor, image: Tensor, anchor: Tensor, anchors: Grid
    ) -> tuple[Tensor, Tensor]:
        """1 - CIoU, and the loss of the distances (of their distributions, or L1), at F assigned anchors: (F,) both."""
        points, strides = anchors.points[anchor], anchors.strides[anchor]
        wanted = boxes[image, anchor] / strides
        rows = raw.transpose(1, 2)[image, anchor].float()
        bins = branch.reg_max
        sides = rows.view(-1, 4, bins).softmax(2) @ branch.proj if bins > 1 else rows
        iou = bbox_iou(dist2bbox(sides, points, xywh=False), wanted, xywh=False, CIoU=True)
        if bins > 1:
            spread = branch.bbox_loss.dfl_loss(rows.view(-1, bins), bbox2dist(points, wanted, bins - 1))
        else:  # relative to the image
            gap = (sides - bbox2dist(points, wanted)).abs()
            spread = (gap * (strides / anchors.size)).mean(-1, keepdim=True)
        return (1.0 - iou).squeeze(-1), spread.squeeze(-1)


def _first(values: Tensor, n: int) -> Tensor:
    """The first ``n`` images; the same tensor, without a slice in the graph, if there are no others."""
    return values if len(values) == n else values[:n]


def distances(raw: Tensor, bins: int, proj: Tensor) -> Tensor:
    """Distances of the four sides from the anchor, (n, 4 * bins, A) logits -> (n, 4, A) [cells], fp32.

    Args:
        raw: Logits of the distributions; with one bin the distances themselves.
        bins: Bins per side.
        proj: (bins,) their values.
    """
    raw = raw.float()
    if bins == 1:
        return raw
    n, _, anchors = raw.shape
    return (proj @ raw.view(n, 4, bins, anchors).softmax(2)).view(n, 4, anchors)
