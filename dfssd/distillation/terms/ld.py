"""LD: localisation distillation (Zheng et al., CVPR 2022, arXiv:2102.12252).

The student's distribution of each box side (DFL bins) against the teacher's, at a high temperature, in two regions: the
anchors that stand for a defect, and the *valuable* ones around it, which know something of its borders. Both come from
the true and accepted boxes by the rule of ATSS (arXiv:1912.02424). ``response_dfl`` is the variant that needs no
boxes: everywhere, weighted by the teacher's confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, distance_box_iou

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import (
    PairShape,
    Term,
    check_positive,
    check_same_shape,
    check_share,
    exact,
    no_autocast,
)
from dfssd.distillation.terms.regions import corners

ANCHOR_CELLS = 5.0
"""Side of the square that stands for an anchor point [cells of its level], as where ATSS is used on YOLO heads."""

CANDIDATES = 9
"""Anchors of each level, those next to the centre of a box, whose overlap with it sets the threshold of the box."""


def anchor_boxes(levels: Sequence[tuple[int, int]], device: torch.device | str = "cpu") -> Tensor:
    """Squares around the anchor points, (A, 4) corners as shares of the image, level after level, row after row."""
    squares = []
    for height, width in levels:
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) / height,
            (torch.arange(width, device=device) + 0.5) / width,
            indexing="ij",
        )
        centre = torch.stack([x, y], -1).view(-1, 2)
        half = centre.new_tensor([ANCHOR_CELLS / width / 2, ANCHOR_CELLS / height / 2])
        squares.append(torch.cat([centre - half, centre + half], 1))
    return torch.cat(squares)


def ld_regions(
    boxes: Tensor, image: Tensor, n: int, levels: Sequence[tuple[int, int]], gamma: float = 0.25
) -> tuple[Tensor, Tensor]:
    """Main and valuable anchors of each image.

    Candidates of a box are the :data:`CANDIDATES` anchors of each level next to its centre; with t = mean + standard
    deviation of their IoU with the box::

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
    anchors = anchor_boxes(levels, boxes.device)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    far = torch.cdist(centres, points)
    candidate = torch.zeros_like(far, dtype=torch.bool)
    start = 0
    for height, width in levels:
        count = height * width
        near = far[:, start : start + count].topk(min(CANDIDATES, count), largest=False).indices
        candidate.scatter_(1, near + start, True)
        start += count
    iou = box_iou(boxes, anchors)
    known = iou.masked_fill(~candidate, 0)
    known_count = candidate.sum(1, keepdim=True)
    average = known.sum(1, keepdim=True) / known_count
    spread = (((known - average) * candidate).square().sum(1, keepdim=True) / (known_count - 1).clamp(min=1)).sqrt()
    threshold = average + spread
    inside = ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(-1)
    positive = candidate & (iou >= threshold) & inside
    diou = distance_box_iou(boxes, anchors)
    around = (diou >= gamma * threshold) & (diou <= threshold)
    masks = []
    for hits in (positive, around):
        found = torch.zeros(n, len(anchors), device=boxes.device)
        masks.append(found.index_add_(0, image, hits.float()) > 0)
    main, valuable = masks
    return main, valuable & ~main


def localisation(
    student_boxes: Tensor, teacher_boxes: Tensor, region: Tensor, reg_max: int, temperature: float = 10.0
) -> Tensor:
    """KL divergence between box distributions, mean over the anchors of a region.

        T^2 sum_{n,a in region} 1/4 sum_side KL(P_t || P_s) / max(N, anchors in region)      >= 0

    Args:
        student_boxes: Box logits of the student, (N, 4 * reg_max, A), channel = side * reg_max + bin.
        teacher_boxes: Box logits of the teacher, same shape.
        region: (N, A) bool.
        reg_max: Bins per side.
        temperature: T.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch or region.

    Raises:
        ValueError: Shapes differ.
    """
    check_same_shape("box logits", student_boxes, teacher_boxes, "N, 4*reg_max, A")
    with no_autocast(student_boxes):
        n, _, anchors = student_boxes.shape
        log_s, log_t = (
            F.log_softmax(x.view(n, 4, reg_max, anchors) / temperature, dim=2)
            for x in exact(student_boxes, teacher_boxes)
        )
        kl = (log_t.exp() * (log_t - log_s)).sum(2).mean(1)
        return temperature**2 * (kl * region).sum() / region.sum().clamp(min=max(1, n))


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

    def forward(self, student: Outputs, teacher: Outputs, batch: dict[str, Any]) -> Tensor:
        """:func:`localisation` in the main region plus that in the valuable one."""
        boxes, image = corners(batch)
        main, valuable = ld_regions(boxes, image, len(student.boxes), student.levels, self.gamma)
        pair = (student.boxes, teacher.boxes.detach())
        own, around = (localisation(*pair, mask, self.shape.reg_max, self.temperature) for mask in (main, valuable))
        return own + self.valuable * around
