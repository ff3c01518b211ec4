"""GIoU response: the boxes that the student decodes against the teacher's, anchor by anchor (arXiv:1902.09630)."""

from __future__ import annotations

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import PairShape, Term, check_same_shape, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.response import check_top, confidence, leading, per_confidence


def distances(boxes: Tensor, reg_max: int) -> Tensor:
    """Raw box outputs (N, 4 * reg_max, A) -> distances to the four sides [cells], (N, 4, A), >= 0: means of the bins.

    With one bin the output is the distance itself. One below 0 would turn a box inside out, which no overlap measures
    (two such sides even make a positive area), so it counts as 0.01, with the gradient that leads back; a box
    without area would have none.
    """
    if reg_max < 2:
        return boxes + (boxes.clamp(min=0.01) - boxes).detach()
    n, _, anchors = boxes.shape
    bins = torch.arange(reg_max, dtype=boxes.dtype, device=boxes.device)
    return torch.einsum("nsba,b->nsa", boxes.view(n, 4, reg_max, anchors).softmax(2), bins)


def giou_gap(sides: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    """1 - GIoU (arXiv:1902.09630) of boxes around the same anchors, and its gradient.

    Both boxes hold the anchor, so the sides of their intersection are the smaller distances, and those of the smallest
    box around both the larger ones. With areas I and C of these two, and U of the union::

        1 - I / (U + 1e-7) + (C - U) / (C + 1e-7)

    Args:
        sides: Distances of the sides from the anchor, (N, 4, A), >= 0: left, top, right, bottom.
        aim: Those to compare with.

    Returns:
        (N, A) in [0, 2], and the gradient for ``sides``, (N, 4, A).
    """
    four = torch.stack([sides, aim, torch.minimum(sides, aim), torch.maximum(sides, aim)])
    extents = four[:, :, :2] + four[:, :, 2:]  # (4, N, width and height, A)
    own, theirs, shared, around = (extents[:, :, 0] * extents[:, :, 1]).unbind()
    union = own + theirs - shared
    per_union, per_around = (union + 1e-7).reciprocal_(), (around + 1e-7).reciprocal_()
    overlap = shared * per_union
    gap = 1 - overlap + (around - union) * per_around
    of_union = overlap * per_union - per_around
    of_shared = -per_union - of_union
    of_around = (union + 1e-7) * per_around.square()
    which = (sides - aim).sign_()  # equal sides belong to both by half
    crossed = extents.flip(2).repeat(1, 1, 2, 1)  # of each side, the extent along it
    gradient = crossed[0] * of_union[:, None]
    gradient.addcmul_(crossed[2] * (1 - which), of_shared[:, None], value=0.5)
    return gap, gradient.addcmul_(crossed[3] * (1 + which), of_around[:, None], value=0.5)


def giou_response(
    boxes: Tensor, teacher_boxes: Tensor, teacher_scores: Tensor, reg_max: int, top: float = 1.0
) -> Tensor:
    """Confidence-weighted distance between decoded boxes at the same anchors, 1 - GIoU (arXiv:1902.09630).

        sum_{n,a} w_a (1 - GIoU(d, d_t)) / max(N, sum_{n,a} w_a)      in [0, 2]

    Args:
        boxes: Box outputs to compare, (N, 4 * reg_max, A), channel = side * reg_max + bin.
        teacher_boxes: Box outputs of the teacher, same shape.
        teacher_scores: Class logits of the teacher, (N, nc, A), for the weights w_a = max_c sigmoid.
        reg_max: Bins per side; 1: the outputs are the distances.
        top: Share of the anchors of each image that take part, those with the highest w_a, in (0, 1].

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ.
    """
    check_same_shape("box logits", boxes, teacher_boxes, "N, 4*reg_max, A")
    with no_autocast(boxes):
        own, theirs, scores = exact(boxes, teacher_boxes.detach(), teacher_scores.detach())
        aim, weight = distances(theirs, reg_max), leading(confidence(scores), top)

        def compute(raw: Tensor) -> tuple[Tensor, list[Tensor]]:
            n, _, anchors = raw.shape
            sides = distances(raw, reg_max)
            gap, gradient = giou_gap(sides, aim)
            share = per_confidence(weight, weight)
            value = (gap * share).sum()
            gradient *= share[:, None]
            if reg_max < 2:
                return value, [gradient]
            bins = torch.arange(reg_max, dtype=raw.dtype, device=raw.device)[:, None]
            through = (bins - sides[:, :, None]).mul_(raw.view(n, 4, reg_max, anchors).softmax(2))
            return value, [through.mul_(gradient[:, :, None]).view(raw.shape)]

        return closed_form(compute, [own])


class GiouResponse(Term):
    """Response term for decoded boxes (GIoU), also for heads without box distributions."""

    def __init__(self, shape: PairShape, *, top: float = 1.0):
        """Set which anchors are compared.

        Args:
            shape: Sizes of the two networks.
            top: Share of the anchors of each image that are compared: those of which the teacher is most confident.

        Raises:
            ValueError: ``top`` is not in (0, 1].
        """
        super().__init__(shape)
        self.top = check_top(top)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`giou_response` of the box outputs."""
        boxes, scores = teacher.boxes.detach(), teacher.scores.detach()
        return giou_response(student.boxes, boxes, scores, self.shape.reg_max, self.top)
