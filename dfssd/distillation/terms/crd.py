"""CRD: cross-response distillation, the student's features judged by the teacher's own detection head.

The response part of TKD and TSKD, that is CrossKD (arXiv:2306.11369) on YOLO heads. A branch of a detection head has
three stages. The student's map before stage k (its *tap*) goes through an adapter, is brought to the scale of the
teacher's map at the same place, and through the rest of the frozen teacher's branch. The result r is compared with the
teacher's own output z_t. So the last layers of the student learn from labels alone, and labels and teacher do not
compete in one layer. Boxes are not needed.

What differs from the published code, which is for other detectors: the teacher's own activation (SiLU, not ReLU), an
adapter where the hidden widths differ, and the normalizer of :mod:`dfssd.distillation.terms.response`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.distillation.heads import Tap, finish
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import PairShape, Term, adapter, check_same_shape, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.response import cls_response, confidence, dfl_response, per_confidence


def align_scale(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> list[Tensor]:
    """The student's maps with mean and standard deviation of the teacher's, channel by channel.

        (x - mean(x)) sqrt((var(t) + 1e-6) / (var(x) + 1e-6)) + mean(t),     over images and places

    Gradient passes through the statistics of the student. fp32, since 1e-6 vanishes in half precision. The published
    code adds 1e-6 to the student's deviation, which multiplies the gradient of a constant channel by a million.

    It is a batch normalization with the teacher's statistics as scale and shift. That divides by the number of values m
    for the variance, here m - 1 is meant: (m - 1) / m is in what is added to both variances, and cancels otherwise.

    Args:
        students: Maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes; no gradient is sent into them.

    Returns:
        For each level (N, C, H, W), fp32 (fp64 for fp64 inputs). A map of a single value per channel keeps it.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    for student, teacher in zip(students, teachers, strict=True):
        check_same_shape("hidden maps", student, teacher, "N, C, H, W")
    with no_autocast(students[0]):
        own, theirs = exact(*students), exact(*(t.detach() for t in teachers))
        if not all(s.numel() > s.shape[1] for s in own):  # a single value per channel, or no image
            return [s if s.numel() <= s.shape[1] else align_scale([s], [t])[0] for s, t in zip(own, theirs)]
        added, means, inverse = [], [], []
        for t in theirs:
            values = t.numel() // t.shape[1]
            added.append(1e-6 * (values - 1) / values)
            with torch.no_grad():
                _, mean, scale = torch.native_batch_norm(t, None, None, None, None, True, 0.0, added[-1])
            means.append(mean)
            inverse.append(scale)
        spread = torch._foreach_reciprocal(inverse)
        return [
            nn.functional.batch_norm(s, None, None, weight, bias, training=True, eps=eps)
            for s, weight, bias, eps in zip(own, spread, means, added, strict=True)
        ]


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


def giou_response(boxes: Tensor, teacher_boxes: Tensor, teacher_scores: Tensor, reg_max: int) -> Tensor:
    """Confidence-weighted distance between decoded boxes at the same anchors, 1 - GIoU (arXiv:1902.09630).

        sum_{n,a} w_a (1 - GIoU(d, d_t)) / max(N, sum_{n,a} w_a)      in [0, 2]

    Args:
        boxes: Box outputs to compare, (N, 4 * reg_max, A), channel = side * reg_max + bin.
        teacher_boxes: Box outputs of the teacher, same shape.
        teacher_scores: Class logits of the teacher, (N, nc, A), for the weights w_a = max_c sigmoid.
        reg_max: Bins per side; 1: the outputs are the distances.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ.
    """
    check_same_shape("box logits", boxes, teacher_boxes, "N, 4*reg_max, A")
    with no_autocast(boxes):
        own, theirs, scores = exact(boxes, teacher_boxes.detach(), teacher_scores.detach())
        aim, weight = distances(theirs, reg_max), confidence(scores)

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


class CrossResponse(Term):
    """What the three terms share: the student's hidden maps through the rest of one branch of the teacher's head."""

    branch = ""

    def __init__(self, shape: PairShape, *, stage: int = 1):
        """Build the adapters.

        Args:
            shape: Widths of the heads.
            stage: Stages that the student runs itself: 0 (the teacher's whole branch runs on the maps of the neck), 1,
                or 2 (only its last 1x1 convolution runs).

        Raises:
            ValueError: No such stage.
        """
        super().__init__(shape)
        if isinstance(stage, bool) or not isinstance(stage, int) or stage not in (0, 1, 2):
            raise ValueError(f"stage={stage} must be one of: 0, 1, 2")
        self.tap: Tap = (self.branch, stage)
        self.taps = frozenset({self.tap})
        widths = zip(shape.student_taps[self.tap], shape.teacher_taps[self.tap], strict=True)
        self.align = nn.ModuleList(nn.Identity() if s == t else adapter(s, t) for s, t in widths)

    def replay(self, student: Outputs, teacher: Outputs) -> Tensor:
        """The output r of the teacher's branch on the student's hidden maps, (N, 4 * reg_max or nc, A)."""
        own: Sequence[Tensor] = student.hidden[self.tap]
        theirs: Sequence[Tensor] = teacher.hidden[self.tap]
        aligned = [align(x) for align, x in zip(self.align, own, strict=True)]
        return finish(teacher.head, self.tap, align_scale(aligned, theirs))


class CrossResponseCls(CrossResponse):
    """CRD for classes: the teacher's head on the student's hidden maps must give the teacher's class scores."""

    branch = "cls"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`~dfssd.distillation.terms.response.cls_response` of :meth:`replay`."""
        return cls_response(self.replay(student, teacher), teacher.scores, teacher.confidence)


class CrossResponseDfl(CrossResponse):
    """CRD for boxes: the teacher's head on the student's hidden maps must give the teacher's box distributions."""

    branch, needs_bins = "box", True

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`~dfssd.distillation.terms.response.dfl_response` of :meth:`replay`."""
        said = teacher.boxes, teacher.scores
        return dfl_response(self.replay(student, teacher), *said, self.shape.reg_max, known=teacher.confidence)


class CrossResponseGiou(CrossResponse):
    """CRD for decoded boxes (GIoU), also for heads without box distributions."""

    branch = "box"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`giou_response` of :meth:`replay`."""
        boxes, scores = teacher.boxes.detach(), teacher.scores.detach()
        return giou_response(self.replay(student, teacher), boxes, scores, self.shape.reg_max)
