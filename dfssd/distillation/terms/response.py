"""Response terms: the student's class scores and box distributions against the teacher's, anchor by anchor.

Both weight anchors by the teacher's confidence, so they need no labels and act on unlabeled images as well. Both divide
by the teacher's total confidence, but by at least one per image::

    value = sum over anchors of all images / max(N, sum of w_a over all images),     w_a = max_c sigmoid(z_t[c, a])

Sums over the whole batch let every confident anchor count the same, whichever image it lies in; with the floor at N,
not 1, numerator and denominator grow alike with the batch, so the value of a batch repeated twice is exactly the same.
Where processes train together, both go over the images of all of them. Where the teacher detects nothing, the floor
keeps the quotient small instead of dividing noise by noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_flag, check_positive
from dfssd.distillation.outputs import Confidence, Outputs
from dfssd.distillation.terms.base import PairShape, Term, check_same_shape, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.regions import apart_from_new
from dfssd.distributed import group

AT_ONCE = 2**22
"""Box logits that are compared at once: where there are more, memory counts and launches do not."""


def confidence(teacher_scores: Tensor) -> Tensor:
    """Confidence w_a of the teacher in each anchor: its highest class score, (N, nc, A) logits -> (N, A) in (0, 1)."""
    return teacher_scores.amax(1).sigmoid()


def per_confidence(total: Tensor, weight: Tensor) -> Tensor:
    """``total`` divided by the sum of ``weight`` (N, A), at least by N."""
    return total / group.normalizer(weight.sum(), max(1, weight.shape[0]))


def leading(weight: Tensor, top: float) -> Tensor:
    """The highest weights of each image; 0 for the other anchors.

    Where a teacher detects nothing, its outputs are mostly noise, and these are most anchors: Dense Teacher
    (arXiv:2207.02541) compares the leading hundredth of them only.

    Args:
        weight: (N, A), >= 0.
        top: Share of the anchors of an image to keep, in (0, 1], rounded, at least one; others level with the last of
            these stay as well.
    """
    if top == 1 or not weight.numel():
        return weight
    count = max(1, round(top * weight.shape[1]))
    return weight * (weight >= weight.topk(count, dim=1).values[:, -1:])


def leading_anchors(known: Confidence, top: float) -> Confidence:
    """A teacher's confidence with that of all but the leading anchors set to 0 (:func:`leading`)."""
    return known if top == 1 else Confidence.of(leading(known.each, top), known.best)


def check_top(top: float) -> float:
    """``top`` as a float; ValueError if it is no share in (0, 1]."""
    if isinstance(top, bool) or not isinstance(top, (int, float)) or not 0 < top <= 1:
        raise ValueError(f"top={top} must be a number > 0 and <= 1")
    return float(top)


def outside_new(student: Outputs, batch: Batch, known: int) -> Tensor | None:
    """(N, A) bool: anchors in no box of a class from ``known`` on; None where the student has no such class."""
    if not student.knows_more:
        return None
    return apart_from_new(batch, len(student.scores), student.levels, known)


def cls_response(
    student_scores: Tensor,
    teacher_scores: Tensor,
    known: Confidence | None = None,
    top: float = 1.0,
    region: Tensor | None = None,
) -> Tensor:
    """Quality-focal distance between class scores (as in CrossKD, arXiv:2306.11369).

    With p = sigmoid(z_s) and t = sigmoid(z_t)::

        sum_{n,c,a} |p - t| * BCE(z_s, t) / max(N, sum_{n,a} w_a)     >= 0, and 0 only for p = t

    Its gradient is sign(p - t) * (p (1 - p) BCE(z_s, t) + (p - t)^2) over the same denominator.

    Args:
        student_scores: Class logits of the student, (N, nc, A).
        teacher_scores: Class logits of the teacher, same shape; they get no gradient.
        known: The teacher's confidence, if it has been computed.
        top: Share of the anchors of each image that take part (:func:`leading`), in both sums.
        region: (N, A) bool, the anchors that can take part, in both sums; None: all.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, nc, A).
    """
    check_same_shape("class scores", student_scores, teacher_scores, "N, nc, A")
    with no_autocast(student_scores):
        z, zt = exact(student_scores, teacher_scores.detach())
        taken = leading_anchors((known or _confidence_of(teacher_scores)).inside(region), top)
        part = None if top == 1 and region is None else (taken.each > 0)[:, None]

        def compute(z: Tensor) -> tuple[Tensor, list[Tensor]]:
            target, p = zt.sigmoid(), z.sigmoid()
            gap = p - target
            bce = F.binary_cross_entropy_with_logits(z, target, reduction="none")
            each = gap.abs() * bce
            value = (each if part is None else each * part).sum() / taken.total
            gradient = torch.addcmul(p, p, p, value=-1).mul_(bce).addcmul_(gap, gap).mul_(gap.sign_()).div_(taken.total)
            return value, [gradient if part is None else gradient.mul_(part)]

        return closed_form(compute, [z])


def dfl_response(
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    teacher_scores: Tensor,
    reg_max: int,
    temperature: float = 1.0,
    known: Confidence | None = None,
    top: float = 1.0,
) -> Tensor:
    """Confidence-weighted KL divergence between box distributions (localization distillation, arXiv:2102.12252).

    With P_t, P_s = softmax over the bins of logits / T::

        T^2 * sum_{n,a} w_a * 1/4 sum_side KL(P_t || P_s) / max(N, sum_{n,a} w_a)     >= 0

    Its gradient is T * w_a * 1/4 (P_s - P_t) over the same denominator.

    Args:
        student_boxes: Box logits of the student, (N, 4 * reg_max, A), channel = side * reg_max + bin.
        teacher_boxes: Box logits of the teacher, same shape; they get no gradient.
        teacher_scores: Class logits of the teacher, (N, nc, A), for the weights.
        reg_max: Bins per side.
        temperature: T.
        known: The teacher's confidence, if it has been computed.
        top: Share of the anchors of each image that take part (:func:`leading`), in both sums.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ, or do not fit ``reg_max`` or the scores.
    """
    check_same_shape("box logits", student_boxes, teacher_boxes, "N, 4*reg_max, A")
    n, channels, anchors = student_boxes.shape
    if channels != 4 * reg_max:
        raise ValueError(f"box logits must have 4 * reg_max = {4 * reg_max} channels, not {channels}")
    if teacher_scores.dim() != 3 or (teacher_scores.shape[0], teacher_scores.shape[2]) != (n, anchors):
        raise ValueError(
            f"class scores must be (N, nc, A) with N={n} and A={anchors} as the box logits, "
            f"not {tuple(teacher_scores.shape)}"
        )
    with no_autocast(student_boxes):
        each, _, total = leading_anchors(known or _confidence_of(teacher_scores), top)

        def log_shares(z: Tensor) -> Tensor:
            z = z.view(-1, 4, reg_max, anchors)
            dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
            return F.log_softmax(z if temperature == 1 else z / temperature, dim=2, dtype=dtype)

        def part(own: Tensor, other: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            log_s, log_t = log_shares(own), log_shares(other)
            theirs = log_t.exp()
            value = (log_t.sub_(log_s).mul_(theirs).sum((1, 2)) * weight).sum() * (temperature**2 / 4)
            gradient = log_s.exp_().sub_(theirs).mul_((weight * (temperature / 4))[:, None, None])
            return value, gradient.view_as(own)

        def compute(own: Tensor) -> tuple[Tensor, list[Tensor]]:
            other, weight = teacher_boxes.detach(), each / total
            at_once = max(1, AT_ONCE // (channels * anchors))
            if at_once >= n:
                value, gradient = part(own, other, weight)
                return value, [gradient]
            gradient, values = torch.empty_like(own, dtype=weight.dtype), []
            for first in range(0, n, at_once):
                images = slice(first, first + at_once)
                value, gradient[images] = part(own[images], other[images], weight[images])
                values.append(value)
            return torch.stack(values).sum(), [gradient]

        return closed_form(compute, [student_boxes])


def _confidence_of(scores: Tensor) -> Confidence:
    """Of class logits (N, nc, A)."""
    return Outputs([], scores, scores, []).confidence


def logit_mse(student: Outputs, teacher: Outputs) -> Tensor:
    """Squared distance between all raw head outputs, 1/4 * sum over levels of the mean (the published code of DFSSD).

    Box and class logits of one level form one map of 4 * reg_max + nc channels; the mean runs over images, channels
    and anchors.

    Args:
        student: Outputs of the student; ``boxes``, ``scores`` and ``level_sizes`` are read.
        teacher: Outputs of the teacher.

    Returns:
        Scalar >= 0, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ, or the level sizes do not add up to the anchors.
    """
    check_same_shape("box logits", student.boxes, teacher.boxes, "N, 4*reg_max, A")
    check_same_shape("class scores", student.scores, teacher.scores, "N, nc, A")
    if sum(student.level_sizes) != student.boxes.shape[2]:
        raise ValueError(
            f"level sizes {student.level_sizes} must add up to the {student.boxes.shape[2]} anchors of the outputs"
        )
    with no_autocast(student.boxes):
        zs, zt = (torch.cat(exact(out.boxes, out.scores), 1) for out in (student, teacher))
        levels = (zs - zt).square().split(student.level_sizes, dim=2)
        return 0.25 * torch.stack([level.sum() / max(1, level.numel()) for level in levels]).sum()


class ClsResponse(Term):
    """Response term for classes: the student's score of each class at each anchor against the teacher's."""

    def __init__(self, shape: PairShape, *, top: float = 1.0, apart: bool = False):
        """Set where it acts.

        Args:
            shape: Classes that both know.
            top: Share of the anchors of each image that are compared: those of which the teacher is most confident.
            apart: Leave out the boxes of classes that the teacher does not know.

        Raises:
            ValueError: ``top`` is not in (0, 1].
        """
        super().__init__(shape)
        self.top, self.apart = check_top(top), check_flag("apart", apart)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`cls_response` of the class scores."""
        region = outside_new(student, batch, self.shape.nc) if self.apart else None
        return cls_response(student.scores, teacher.scores, teacher.confidence, self.top, region)


class DflResponse(Term):
    """Response term for boxes: the student's distribution of each box side against the teacher's (DFL bins)."""

    needs_bins = True

    def __init__(self, shape: PairShape, *, temperature: float = 1.0, top: float = 1.0, apart: bool = False):
        """Set the options.

        Args:
            shape: Bins of the heads, and classes that both know.
            temperature: Of the softmax over the bins.
            top: Share of the anchors of each image that are compared: those of which the teacher is most confident.
            apart: Leave out the boxes of classes that the teacher does not know.

        Raises:
            ValueError: ``temperature`` is not a number above 0, ``top`` is not in (0, 1], or the head has no box
                distribution.
        """
        super().__init__(shape)
        self.temperature = check_positive("temperature", temperature)
        self.top, self.apart = check_top(top), check_flag("apart", apart)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`dfl_response` of the box logits, weighted by the teacher's class scores."""
        own, theirs, known = student.boxes, teacher.boxes, teacher.confidence
        if self.apart:
            known = known.inside(outside_new(student, batch, self.shape.nc))
        return dfl_response(own, theirs, teacher.scores, self.shape.reg_max, self.temperature, known, self.top)


class LogitMSE(Term):
    """Response term of the published DFSSD code: mean squared distance of all raw head outputs."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:func:`logit_mse` of both networks."""
        detached = Outputs(teacher.feats, teacher.boxes.detach(), teacher.scores.detach(), teacher.levels)
        return logit_mse(student, detached)
