"""LD: localization distillation (Zheng et al., CVPR 2022, arXiv:2102.12252).

The student's distribution of each box side (DFL bins) against the teacher's, at a high temperature, in two regions: the
anchors that stand for a defect, and the *valuable* ones around it, which carry information about its borders. Both come
from the true and accepted boxes by the rule of ATSS (arXiv:1912.02424). ``response_dfl`` is the variant that needs no
boxes: everywhere, weighted by the teacher's confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_positive, check_share
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import PairShape, Term, check_same_shape, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.regions import corners, in_images, match_anchors
from dfssd.distributed import group


def ld_regions(
    boxes: Tensor, image: Tensor, n: int, levels: Sequence[tuple[int, int]], gamma: float = 0.25
) -> tuple[Tensor, Tensor]:
    """Main and valuable anchors of each image.

    With the threshold t of each box (:func:`~dfssd.distillation.terms.regions.match_anchors`)::

        main:      candidates with IoU >= t whose point lies in the box
        valuable:  other anchors with gamma t <= DIoU <= t

    Args:
        boxes: (M, 4) corners as shares of the image.
        image: (M,) image of each.
        n: Images.
        levels: (height, width) of each level [cells].
        gamma: How far out the valuable region goes, [0, 1).

    Returns:
        Two (n, A) bool masks without an anchor in common.
    """
    match = match_anchors(boxes, levels)
    around = torch.maximum(boxes[:, None, 2:], match.anchors[:, 2:]) - torch.minimum(
        boxes[:, None, :2], match.anchors[:, :2]
    )
    diagonal = around.square().sum(2) + 1e-7
    diou = match.iou - match.distance.square() / diagonal
    main = in_images(match.positive, image, n)
    valuable = in_images((diou >= gamma * match.threshold) & (diou <= match.threshold), image, n)
    return main, valuable & ~main


def region_weight(region: Tensor) -> Tensor:
    """Equal weights of the anchors of a region (N, A) bool, with sum 1, or less where it has fewer than N anchors.

    Where processes train together, the sum of a region is the mean over them.
    """
    return region / group.normalizer(region.sum(), max(1, len(region)))


def weighted_kl(
    student_boxes: Tensor, teacher_boxes: Tensor, weight: Tensor, reg_max: int, temperature: float
) -> Tensor:
    """Weighted sum of the KL divergences between the box distributions at all anchors.

        T^2 sum_{n,a} w_a 1/4 sum_side KL(P_t || P_s)      >= 0,      with the gradient T w_a / 4 (P_s - P_t)

    with P = softmax over the bins of logits / T.

    Args:
        student_boxes: Box logits of the student, (N, 4 * reg_max, A), channel = side * reg_max + bin.
        teacher_boxes: Box logits of the teacher, same shape.
        weight: w, (N, A), without gradient.
        reg_max: Bins per side.
        temperature: T.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ.
    """
    check_same_shape("box logits", student_boxes, teacher_boxes, "N, 4*reg_max, A")

    def compute(own: Tensor) -> tuple[Tensor, list[Tensor]]:
        n, _, anchors = own.shape
        log_s, log_t = (F.log_softmax(x.view(n, 4, reg_max, anchors) / temperature, dim=2) for x in (own, theirs))
        share = (weight.to(own.dtype) * (temperature / 4))[:, None, None]
        target = log_t.exp()
        value = ((log_t - log_s).mul_(target).mul_(share)).sum() * temperature
        return value, [log_s.exp_().sub_(target).mul_(share).view(own.shape)]

    with no_autocast(student_boxes):
        own, theirs = exact(student_boxes, teacher_boxes)
        return closed_form(compute, [own])


class Localisation(Term):
    """LD: box distributions against the teacher's, on the defects and in the valuable region around them."""

    needs_bins, needs_boxes = True, True

    def __init__(self, shape: PairShape, *, temperature: float = 10.0, valuable: float = 1.0, gamma: float = 0.25):
        """Set the options.

        Args:
            shape: Bins of the heads.
            temperature: Of the softmax over the bins.
            valuable: Weight of the valuable region against the main one.
            gamma: How far out it goes, [0, 1).

        Raises:
            ValueError: An option has a wrong value, or the head has no box distribution.
        """
        super().__init__(shape)
        self.temperature = check_positive("temperature", temperature)
        self.valuable = check_share("valuable", valuable, below=float("inf"))
        self.gamma = check_share("gamma", gamma)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`weighted_kl` of the main region plus that of the valuable one."""
        boxes, image = corners(batch)
        main, valuable = ld_regions(boxes, image, len(student.boxes), student.levels, self.gamma)
        weight = region_weight(main) + self.valuable * region_weight(valuable)
        return weighted_kl(student.boxes, teacher.boxes.detach(), weight, self.shape.reg_max, self.temperature)
