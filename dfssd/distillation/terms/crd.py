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
from dfssd.distillation.terms.giou import giou_response
from dfssd.distillation.terms.response import cls_response, dfl_response


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
        self.align = nn.ModuleList(
            nn.Identity() if s == t else adapter(s, t, selected=shape.selected) for s, t in widths
        )

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
        """:func:`~dfssd.distillation.terms.giou.giou_response` of :meth:`replay`."""
        boxes, scores = teacher.boxes.detach(), teacher.scores.detach()
        return giou_response(self.replay(student, teacher), boxes, scores, self.shape.reg_max)
