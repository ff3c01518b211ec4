"""SD-IDD: what a detector must not forget while it learns new classes (Sensors 26, 2026, 1413; ERD, arXiv:2204.02136).

Three selective terms keep the student close to the teacher where the teacher's outputs matter: classes at its most
confident anchors, box distributions at the anchors that stand for the new boxes, features around them. What the
published code computes besides (a copy of LD, a class term between old and new logits that fits only by chance,
un-normalized sums) is left out. Anchors are squares of 5 cells, not 8 as published: on the three levels of a YOLO head
at 640 px the larger ones leave 15 % of the boxes of NEU-DET without any anchor in the second stage, these 3 % (at 160
px 8 % and 9 %); the fallback covers the rest.

The student is a grown copy of the teacher, so their maps have the same channels and need no adapters (only networks of
different widths get them); ``scores`` are those of the classes that both know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from dfssd.batches import Batch
from dfssd.checks import check_choice, check_flag, check_positive, check_share
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import (
    FeatureTerm,
    PairShape,
    Term,
    check_same_maps,
    check_same_shape,
    exact,
    no_autocast,
)
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.giou import distances
from dfssd.distillation.terms.ld import weighted_kl
from dfssd.distillation.terms.levels import Maps, total
from dfssd.distillation.terms.regions import ANCHOR_CELLS, anchor_boxes, corners, in_images, match_anchors

MOST_COMPARED = 2048
"""Boxes in one pass of non-maximum suppression, whose work grows with their square."""


def far_above(values: Tensor, deviations: float) -> Tensor:
    """Where a row's values exceed its mean by ``deviations`` (unbiased) standard deviations; (N, A) -> (N, A) bool."""
    if not values.numel():
        return torch.zeros_like(values, dtype=torch.bool)
    return values > values.mean(1, keepdim=True) + deviations * values.std(1, keepdim=True)


def confident(scores: Tensor, deviations: float = 2.0) -> Tensor:
    """Anchors at which the teacher is far more confident than usual in that image.

        m_a = max_c sigmoid(z[c, a]),     m_a > mean(m) + deviations * std(m)      (over the anchors of an image)

    Args:
        scores: Class logits of the teacher, (N, nc, A).
        deviations: How far above the mean.

    Returns:
        (N, A) bool.
    """
    (z,) = exact(scores)
    return far_above(z.sigmoid().amax(1), deviations)


def old_class_distance(student: Tensor, teacher: Tensor, region: Tensor) -> Tensor:
    """Squared distance of the class logits at the chosen anchors, a mean over each image's anchors and classes.

        1/N sum_i mean_{a in region_i, c} (z_s - z_t)^2      >= 0

    Args:
        student: Class logits of the student for the classes of the teacher, (N, nc, A).
        teacher: Class logits of the teacher, same shape.
        region: (N, A) bool.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); an image without chosen anchors counts 0.

    Raises:
        ValueError: Shapes differ.
    """
    check_same_shape("class scores", student, teacher, "N, nc, A")

    def compute(own: Tensor) -> tuple[Tensor, list[Tensor]]:
        gap = own - theirs
        weight = per_image(region.to(own.dtype), region) * (2 / own.shape[1])
        gradient = gap * weight[:, None]
        return gap.mul_(gradient).sum() / 2, [gradient]

    with no_autocast(student):
        own, theirs = exact(student, teacher)
        return closed_form(compute, [own])


def per_image(weight: Tensor, counted: Tensor) -> Tensor:
    """Weights (N, A) divided by the number of images, and by what is ``counted`` (N, A) in each, at least 1."""
    return weight / (counted.sum(1, keepdim=True).clamp(min=1) * max(1, len(weight)))


def regression_weights(
    boxes: Tensor, image: Tensor, n: int, levels: list[tuple[int, int]], *, fallback: bool = True
) -> Tensor:
    """Weights of the anchors for the boxes of a batch: dual-stage selection, weighted by overlap.

    Stage 1: the anchors next to the center of a box, on each level; stage 2: those of them that overlap it more than
    usual (:func:`~dfssd.distillation.terms.regions.match_anchors`). A box that gets none takes its best one, which is
    not rare on the three levels of a YOLO head.

    Args:
        boxes: (M, 4) corners as shares of the image.
        image: (M,) image of each.
        n: Images.
        levels: (height, width) of each level [cells].
        fallback: Give a box without any anchor its best one.

    Returns:
        (n, A): the largest IoU of an anchor's square with a box that it was chosen for; 0 if it was not.
    """
    match = match_anchors(boxes, levels)
    chosen = match.positive
    if fallback:
        chosen = chosen | (match.best & ~chosen.any(1, keepdim=True))
    weight = match.iou * chosen
    out = weight.new_zeros(n, weight.shape[1])
    return out.scatter_reduce(0, image[:, None].expand_as(weight), weight, "amax")


def feature_region(boxes: Tensor, image: Tensor, n: int, levels: list[tuple[int, int]], near: float = 0.5) -> Tensor:
    """Anchors that overlap a box at least ``near`` times as much as the best one does.

    The threshold is relative to each box, so boxes that no anchor fits well, small or long ones, get anchors as well.

    Args:
        boxes: (M, 4) corners as shares of the image.
        image: (M,) image of each.
        n: Images.
        levels: (height, width) of each level [cells].
        near: Share of the largest overlap, [0, 1).

    Returns:
        (n, A) bool.
    """
    iou = match_anchors(boxes, levels).iou
    best = iou.amax(1, keepdim=True) if len(boxes) else iou.new_zeros(0, 1)
    return in_images((iou > near * best) & (iou > 0), image, n)


def _parts(counts: list[int], most: int) -> list[slice]:
    """Slices of consecutive rows that keep those of an image together: at most ``most``, or a single image."""
    ends, filled, total = [], 0, 0
    for count in counts:
        if filled and filled + count > most:
            ends.append(total)
            filled = 0
        filled, total = filled + count, total + count
    return [slice(a, b) for a, b in zip([0, *ends], [*ends, total], strict=True) if b > a]


class IncrementalCls(Term):
    """SD-IDD for classes: the old classes' logits at the anchors where the teacher is most confident."""

    def __init__(self, shape: PairShape, *, deviations: float = 2.0):
        """Set which anchors are compared.

        Args:
            shape: Sizes of the two networks.
            deviations: Standard deviations above the mean of its image from which an anchor counts as confident.

        Raises:
            ValueError: ``deviations`` has a wrong value.
        """
        super().__init__(shape)
        self.deviations = check_share("deviations", deviations, below=float("inf"))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`old_class_distance` in the region of :func:`confident`."""
        scores = teacher.scores.detach()
        return old_class_distance(student.scores, scores, confident(scores, self.deviations))


class IncrementalBox(Term):
    """SD-IDD for boxes: dual-stage cascade regression, box distributions weighted by overlap."""

    needs_bins, needs_boxes = True, True

    def __init__(self, shape: PairShape, *, temperature: float = 10.0, weights: str = "iou", fallback: bool = True):
        """Set the options.

        Args:
            shape: Bins of the heads.
            temperature: Of the softmax over the bins.
            weights: "iou" (of an anchor with its box), "conf" (the student's confidence in a new class, as in the
                published code) or "uniform".
            fallback: A box without any anchor takes its best one.

        Raises:
            ValueError: An option has a wrong value, or the head has no box distribution.
        """
        super().__init__(shape)
        self.temperature = check_positive("temperature", temperature)
        self.weights = check_choice("weights", weights, ("iou", "conf", "uniform"))
        self.fallback = check_flag("fallback", fallback)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean over the images of the weighted mean of the divergence of box distributions, as a share of the bins R.

            1/N sum_i sum_a w_a KL_a / max(1, sum_a w_a),     KL_a = T^2 / R 1/4 sum_side KL(P_t || P_s)

        with the weights of :func:`regression_weights`; an image without boxes counts 0.
        """
        check_same_shape("box logits", student.boxes, teacher.boxes, "N, 4*reg_max, A")
        with no_autocast(student.boxes):
            boxes, image = corners(batch)
            weight = regression_weights(boxes, image, len(student.boxes), student.levels, fallback=self.fallback)
            if self.weights == "uniform":
                weight = (weight > 0).float()
            elif self.weights == "conf":
                new = student.new_scores
                scores = student.scores if new is None or not new.shape[1] else new
                weight = (weight > 0) * scores.detach().float().sigmoid().amax(1)
            bins = self.shape.reg_max
            weight = per_image(weight, weight) / bins
            return weighted_kl(student.boxes, teacher.boxes.detach(), weight, bins, self.temperature)


class IncrementalFeature(FeatureTerm):
    """SD-IDD for features: IoU-driven, difficulty-aware imitation around the new boxes."""

    needs_boxes = True

    def __init__(self, shape: PairShape, *, near: float = 0.5):
        """Set which cells are compared.

        Args:
            shape: Channels of the compared layers.
            near: Share of the best overlap with a box that the anchor of a cell must come to.

        Raises:
            ValueError: ``near`` has a wrong value.
        """
        super().__init__(shape)
        self.near = check_share("near", near)
        for level, (own, theirs) in enumerate(zip(shape.student_channels, shape.teacher_channels, strict=True)):
            if own == theirs:
                self.align[level] = nn.Identity()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Sum over the levels of mean_{cells in region, channels} (f_s - f_t)^2, >= 0."""
        boxes, image = corners(batch)
        own, theirs = zip(*self.pairs(student, teacher), strict=True)
        sizes = [(f.shape[2], f.shape[3]) for f in own]
        check_same_maps(own, theirs)
        region = feature_region(boxes, image, len(student.boxes), sizes, self.near)

        def compute(*maps: Tensor) -> tuple[Tensor, Maps]:
            gap = Maps(maps) - targets
            masks = Maps(x.to(gap[0].dtype) for x in region.split([h * w for h, w in sizes], 1))
            masks *= [2 / x.shape[1] for x in maps]
            counts = [x.sum() for x in region.split([h * w for h, w in sizes], 1)]
            masks *= torch.stack(counts).clamp_(min=1).to(gap[0].dtype).reciprocal_().unbind()
            gradient = gap * [m.view(-1, 1, *size) for m, size in zip(masks, sizes, strict=True)]
            gap *= gradient
            return total(gap) / 2, gradient

        with no_autocast(own[0]):
            targets = exact(*theirs)
            return closed_form(compute, exact(*own))


class ElasticBox(Term):
    """ERD for boxes: box distributions at the teacher's most decided boxes, thinned by non-maximum suppression."""

    needs_bins = True

    def __init__(self, shape: PairShape, *, temperature: float = 10.0, deviations: float = 2.0, iou: float = 0.005):
        """Set the options (those of arXiv:2204.02136).

        Args:
            shape: Bins of the heads.
            temperature: Of the softmax over the bins.
            deviations: Chosen are anchors whose largest box logit is so many standard deviations above the mean.
            iou: Overlap from which a box of the same class is dropped.

        Raises:
            ValueError: An option has a wrong value, or the head has no box distribution.
        """
        super().__init__(shape)
        self.temperature = check_positive("temperature", temperature)
        self.deviations = check_share("deviations", deviations, below=float("inf"))
        self.iou = check_share("iou", iou)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean divergence of box distributions at the kept anchors, weighted by the student's confidence, >= 0."""
        with no_autocast(student.boxes):
            logits, scores = exact(teacher.boxes.detach(), teacher.scores.detach())
            above = far_above(logits.amax(1), self.deviations)
            boxes = self._decode(logits, teacher.levels)
            best, cls = scores.sigmoid().max(1)
            kept = self._thinned(above, boxes, best, cls)
            weight = student.scores.detach().float().sigmoid().amax(1) * kept
            bins = self.shape.reg_max
            return weighted_kl(
                student.boxes, teacher.boxes.detach(), per_image(weight, kept) / bins, bins, self.temperature
            )

    def _thinned(self, above: Tensor, boxes: Tensor, best: Tensor, cls: Tensor) -> Tensor:
        """1 at the anchors that non-maximum suppression leaves of those ``above``, in each image and class, (N, A).

        How many anchors there are is known to the device alone, so the host waits for it.
        """
        kept = torch.zeros_like(above, dtype=best.dtype)
        counts = above.sum(1).tolist()
        if not any(counts):
            return kept
        candidates = above.flatten().nonzero().flatten()
        group = cls + self.shape.nc * torch.arange(len(above), device=cls.device)[:, None]
        chosen = (x.flatten(0, 1).index_select(0, candidates) for x in (boxes, best, group))
        precise = torch.float32 if boxes.device.type == "mps" else torch.float64
        found, score, apart = (x.to(precise) for x in chosen)
        found += (apart * (found.amax() - found.amin() + 1))[:, None]  # no box meets one of another group
        for part in _parts(counts, MOST_COMPARED):
            left = candidates[part].index_select(0, nms(found[part], score[part], self.iou))
            kept.view(-1).index_fill_(0, left, 1.0)
        return kept

    def _decode(self, logits: Tensor, levels: list[tuple[int, int]]) -> Tensor:
        """Corners of the teacher's boxes as shares of the image, (N, A, 4)."""
        squares = anchor_boxes(tuple(levels), logits.device)
        points, cell = (squares[:, :2] + squares[:, 2:]) / 2, (squares[:, 2:] - squares[:, :2]) / ANCHOR_CELLS
        sides = distances(logits, self.shape.reg_max).transpose(1, 2)
        return torch.cat([points - sides[..., :2] * cell, points + sides[..., 2:] * cell], 2)
