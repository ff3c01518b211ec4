"""The loss of both kinds of images by two runs of Ultralytics' own criterion: slow, and what the fast loss must equal.

The criterion is used as it is; its two exchangeable parts are replaced by drop-ins: the binary cross-entropy (zero at
ignored anchors, weighted at assigned ones) and the assigner (which reports which box, and so which weight, each anchor
got).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEAST_WEIGHT = 1e-3


class WeightedAssigner(nn.Module):
    """A drop-in for Ultralytics' assigner that gives every box a weight in the loss.

    With the weight w_i in (0, 1] of the box that anchor i is assigned to (1 where there is none), and Ultralytics'
    target score t_i, each part of the detection loss becomes::

        sum_i w_i l_i(t_i) / max(1, sum_i t_i)

    so a doubtful box counts less, its target score is not lowered, and the background is not affected. The box parts
    read their weights from the target scores, which are returned as w_i t_i; :class:`WeightedBCE` divides w_i out of
    the targets of the class part again and multiplies its loss by it. Ultralytics divides by the sum of the scores that
    it is given, w_i t_i: :attr:`correction` puts sum_i t_i in its place. With the smaller sum a uniform weight would
    cancel for the boxes, and only the background would gain weight.

    Attributes:
        weights: (N, M) weight of each box as Ultralytics pads them (:func:`padded`), or None for 1 throughout.
        anchor_weights: (N, A) weight of each anchor after the last call; 1 where no box is assigned; None as above.
        correction: max(1, sum w t) / max(1, sum t) of the last call, scalar; None as above.
    """

    def __init__(self, assigner: nn.Module):
        """Wrap ``assigner``."""
        super().__init__()
        self.assigner = assigner
        self.weights: Tensor | None = None
        self.anchor_weights: Tensor | None = None
        self.correction: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Ultralytics' assignment with the target scores times the weights of their boxes."""
        labels, boxes, scores, foreground, index = self.assigner(*args, **kwargs)
        self.anchor_weights = self.correction = None
        if self.weights is not None and self.weights.shape[1]:
            chosen = self.weights.to(scores.dtype).gather(1, index.long())
            self.anchor_weights = torch.where(foreground.bool(), chosen, torch.ones_like(chosen))
            weighted = scores * self.anchor_weights[..., None]
            self.correction = weighted.sum().clamp(min=1) / scores.sum().clamp(min=1)
            scores = weighted
        return labels, boxes, scores, foreground, index


class WeightedBCE(nn.Module):
    """Binary cross-entropy on logits, zero at ignored anchors and weighted at assigned ones.

    A drop-in for the ``bce`` of Ultralytics' detection loss: logits and targets (N, A, nc) -> losses (N, A, nc).
    :attr:`ignored` is None or a (N, A) bool mask, set before each call of the loss; an anchor that a box is assigned to
    is never ignored. The weights are those of ``assigner``.
    """

    def __init__(self, assigner: WeightedAssigner) -> None:
        """Start without ignored anchors."""
        super().__init__()
        self.bce = nn.BCEWithLogitsLoss(reduction="none")
        self.assigner = assigner
        self.ignored: Tensor | None = None

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Elementwise loss."""
        weight = self.assigner.anchor_weights
        if weight is None:
            loss: Tensor = self.bce(logits, targets)
        else:
            weight = weight[..., None].to(targets.dtype)
            loss = self.bce(logits, targets / weight) * weight * self.assigner.correction
        if self.ignored is None:
            return loss
        unassigned = self.ignored & (targets.sum(-1) <= 0)
        return loss.masked_fill(unassigned[..., None], 0.0)


class CorrectedBoxLoss(nn.Module):
    """A drop-in for Ultralytics' ``bbox_loss``: its losses times the correction of ``assigner``."""

    def __init__(self, loss: nn.Module, assigner: WeightedAssigner) -> None:
        """Wrap ``loss``."""
        super().__init__()
        self.loss, self.assigner = loss, assigner

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Box and distribution loss."""
        parts = self.loss(*args, **kwargs)
        correction = self.assigner.correction
        return parts if correction is None else tuple(part * correction for part in parts)


def padded(values: Tensor, batch_idx: Tensor, n: int) -> Tensor:
    """Values of boxes in the layout in which Ultralytics pads the boxes of a batch.

    Args:
        values: (M,) one value per box.
        batch_idx: (M,) image of each box, in non-decreasing order.
        n: Number of images.

    Returns:
        (n, largest number of boxes in an image); places without box hold 1.
    """
    index = batch_idx.long()
    counts = torch.bincount(index, minlength=n)
    out = values.new_ones(n, int(counts.max()) if len(values) else 0)
    first = counts.cumsum(0) - counts
    out[index, torch.arange(len(values), device=values.device) - first[index]] = values
    return out


def ignored_anchors(boxes: Tensor, batch_idx: Tensor, n: int, levels: Sequence[tuple[int, int]]) -> Tensor:
    """Which anchor points lie inside an ignore box of their image.

    The anchors of a level form a grid, so "inside" is the product of "inside the columns" and "inside the rows": no
    table of boxes times anchors is ever built, which would take gigabytes for large images.

    Args:
        boxes: (M, 4) ignore boxes, xywh center format, normalized 0-1.
        batch_idx: (M,) image of each box.
        n: Number of images.
        levels: (height, width) of each level [cells].

    Returns:
        (n, A) bool mask, level after level, row after row.
    """
    order = batch_idx.argsort(stable=True)
    index, boxes = batch_idx[order], boxes[order].float()
    low = torch.stack([padded(c, index, n) for c in (boxes[:, :2] - boxes[:, 2:] / 2).unbind(1)], -1)
    high = torch.stack([padded(c, index, n) for c in (boxes[:, :2] + boxes[:, 2:] / 2).unbind(1)], -1)
    there = padded(torch.zeros_like(index, dtype=boxes.dtype), index, n) == 0  # places without box hold 1
    masks = []
    for sizes in levels:
        inside = []
        for axis, cells in ((1, sizes[0]), (0, sizes[1])):
            points = (torch.arange(cells, device=boxes.device) + 0.5) / cells
            hit = (points >= low[..., axis, None]) & (points <= high[..., axis, None]) & there[..., None]
            inside.append(hit.float())  # (n, most boxes, cells)
        masks.append((torch.bmm(inside[0].transpose(1, 2), inside[1]) > 0).flatten(1))
    return torch.cat(masks, 1)


def take_images(preds: Any, index: Tensor) -> Any:
    """The images ``index`` of a nested prediction structure (dicts, lists and tensors with the image axis first)."""
    if isinstance(preds, Mapping):
        return {k: take_images(v, index) for k, v in preds.items()}
    if isinstance(preds, (list, tuple)):
        return [take_images(v, index) for v in preds]
    return preds[index]


def rows_of(images: Tensor, batch_idx: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The boxes of some images of a batch, ordered by image, with the images renumbered.

    Args:
        images: (I,) numbers of the images, of which the first becomes 0, the second 1, ...
        batch_idx: (M,) image of each box.
        n: Images in the batch.

    Returns:
        (B,) int64, rows of the boxes, and (B,) float32, their new image numbers in ascending order.
    """
    renumber = torch.full((n,), -1, dtype=torch.long, device=images.device)
    renumber[images] = torch.arange(len(images), device=images.device)
    new = renumber[batch_idx.long()]
    rows = (new >= 0).nonzero().flatten()
    rows = rows[new[rows].argsort(stable=True)]  # Ultralytics relies on ascending image numbers
    return rows, new[rows].float()


def take_classes(preds: Any, chosen: slice) -> Any:
    """A nested prediction structure with the class scores, (N, nc, A), of some classes only."""
    if isinstance(preds, Mapping):
        return {k: v[:, chosen] if k == "scores" else take_classes(v, chosen) for k, v in preds.items()}
    return preds


class TwoPasses:
    """Ultralytics' criterion of one model, applied to labeled and to pseudo-labeled images separately.

    Each kind has its own normalizer, so that neither the number nor the scores of pseudo boxes change the weight of a
    true box. Where new classes are added to a detector, each kind covers its own classes only: the labels
    of the new ones, where old defects in the same images are not labeled, and the teacher's boxes of the old ones.
    """

    def __init__(self, criterion: Any, *, labels_from: int = 0, pseudo_until: int | None = None):
        """Prepare ``criterion`` (also the two branches of an end-to-end one) in place.

        Args:
            criterion: What ``model.init_criterion()`` returned.
            labels_from: The first class that labels cover.
            pseudo_until: The number of classes that pseudo boxes cover, those of the teacher; None: all.
        """
        self.criterion = criterion
        heads = [getattr(criterion, name, None) for name in ("one2many", "one2one")]  # of an end-to-end model
        self.branches: list[Any] = [part for part in (criterion, *heads) if hasattr(part, "bce")]
        for branch in self.branches:
            branch.assigner = WeightedAssigner(branch.assigner)
            branch.bce = WeightedBCE(branch.assigner)
            branch.bbox_loss = CorrectedBoxLoss(branch.bbox_loss, branch.assigner)
        self.classes = self.branches[0].nc
        self.covered = {False: slice(labels_from, self.classes), True: slice(0, pseudo_until or self.classes)}
        self.class_weights = [branch.class_weights for branch in self.branches]

    def _restrict_classes(self, pseudo: bool) -> slice:
        """Restrict the criterion to the classes that labels, or pseudo boxes, cover; returns them."""
        chosen = self.covered[pseudo]
        for branch, weights in zip(self.branches, self.class_weights, strict=True):
            branch.assigner.assigner.num_classes = chosen.stop - chosen.start
            branch.class_weights = None if weights is None else weights[..., chosen]
        return chosen

    def __call__(
        self, preds: Any, batch: Mapping[str, Any], unsup_weight: float
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Loss vectors (a mean over the images times their number) and detached items of both kinds.

        Args:
            preds: Predictions of the model in training mode.
            batch: Mapping[str, Any] with the boxes of this step.
            unsup_weight: Factor on the loss of the unlabeled images; 0 leaves them out altogether.

        Returns:
            Vectors to sum, at most one per kind; and the items by column name, those of pseudo-labels with ``u_``.
        """
        many = preds.get("one2many", preds)
        vectors: list[Tensor] = []
        items: dict[str, Tensor] = {}
        for prefix, chosen, weight in (("", batch["labeled"], 1.0), ("u_", ~batch["labeled"], unsup_weight)):
            images = chosen.nonzero().flatten()
            if len(images) and weight > 0:
                vector, own = self._loss_of(preds, batch, images, pseudo=bool(prefix))
                vectors.append(weight * vector)
            else:
                names = [k.removeprefix("u_") for k in items] or list(self.branches[0].loss_names)
                own = dict.fromkeys(names, many["boxes"].new_zeros(()))
            items.update({f"{prefix}{k}": v * weight for k, v in own.items()})
        return vectors, items

    def _loss_of(
        self, preds: Any, batch: Mapping[str, Any], images: Tensor, *, pseudo: bool
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The criterion on some images of the batch: the labeled ones, or those with pseudo boxes."""
        n = len(batch["labeled"])
        rows, image = rows_of(images, batch["batch_idx"], n)
        ignored, ignored_image = rows_of(images, batch["ignore_batch_idx"], n)
        levels = [(f.shape[2], f.shape[3]) for f in preds.get("one2many", preds)["feats"]]
        mask = ignored_anchors(batch["ignore_bboxes"][ignored], ignored_image, len(images), levels)
        weights = padded(batch["score"][rows].clamp(min=LEAST_WEIGHT), image, len(images)) if pseudo else None
        for branch in self.branches:
            branch.bce.ignored, branch.assigner.weights = mask, weights
        classes = self._restrict_classes(pseudo)
        boxes = {"batch_idx": image, "bboxes": batch["bboxes"][rows], "cls": batch["cls"][rows] - classes.start}
        vector, items = self.criterion(take_classes(take_images(preds, images), classes), boxes)
        for branch, class_weights in zip(self.branches, self.class_weights, strict=True):
            # the validation uses the same criterion
            branch.bce.ignored, branch.assigner.weights = None, None
            branch.assigner.assigner.num_classes, branch.class_weights = self.classes, class_weights
        return vector, items
