"""The interface of a distillation term, and what all terms share.

A term is one method: its mathematics as a pure function, and a thin module that feeds it and owns its trainable
adapters. Weight, schedule and the factor N of Ultralytics' batch loss are applied outside, alike for all terms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.distillation.channels import held_channels
from dfssd.distillation.heads import Tap
from dfssd.distillation.outputs import Outputs

UNKNOWN = 0.1
"""Factor on the random weights of an adapter beside those that are known; not 0, since a standardized map of zeros has
huge gradients."""

EPSILON = 1e-5
"""What the variance of a channel is increased by where it is divided out."""


@dataclass(frozen=True)
class PairShape:
    """What a term needs to know about the two networks before their first batch.

    Attributes:
        student_channels: Channels of each of the student's compared layers.
        teacher_channels: The same for the teacher.
        reg_max: Bins of the box distribution, equal in both.
        nc: Classes that both know: those of the teacher, which are the first ones of the student.
        student_taps: Channels of each tap inside the student's detection head, level by level.
        teacher_taps: The same for the teacher.
        selected: The student began as a part of the teacher: it holds the channels :func:`held_channels` of each layer.
    """

    student_channels: tuple[int, ...]
    teacher_channels: tuple[int, ...]
    reg_max: int
    nc: int
    student_taps: Mapping[Tap, tuple[int, ...]] = field(default_factory=dict)
    teacher_taps: Mapping[Tap, tuple[int, ...]] = field(default_factory=dict)
    selected: bool = False


class Term(nn.Module):
    """Base class of all terms.

    A subclass takes its options as keyword arguments with defaults and annotations: the strict configuration and
    ``--help`` read them, and the first line of the class docstring, from there. Option values are checked in the
    constructor, with a ``ValueError`` of one sentence.

    Attributes:
        needs_bins: The term compares box distributions, which heads with one bin per side (YOLO26) do not have.
        needs_boxes: The term is 0 in a batch without any box.
        taps: The maps inside the detection heads that the term needs.
    """

    needs_bins: ClassVar[bool] = False
    needs_boxes: bool = False
    taps: frozenset[Tap] = frozenset()

    def __init__(self, shape: PairShape):
        super().__init__()
        self.shape = shape
        if self.needs_bins and shape.reg_max < 2:
            raise ValueError(
                f"a detection head with box distributions is needed, but reg_max is {shape.reg_max}; "
                "switch the term off with weight=0"
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Value of the term for one batch.

        Args:
            student: Outputs of the student, with gradient.
            teacher: Outputs of the teacher; no gradient is sent back into them.
            batch: For terms that use boxes: ``bboxes`` and ``batch_idx``, true boxes and accepted pseudo boxes
                alike, and ``ignore_bboxes`` and ``ignore_batch_idx``, where nothing is known.

        Returns:
            Scalar in at least fp32, a mean over the images of the batch (not multiplied by N), finite.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward")


class FeatureTerm(Term):
    """A term that compares the maps of the chosen layers, level by level.

    A 1x1 convolution per level (:func:`adapter`) brings the student's maps to the teacher's channels. The value is the
    mean of :meth:`compare` over the levels.

    Attributes:
        bias: The adapters have a bias; pointless where the comparison removes constants.
    """

    bias: ClassVar[bool] = False

    def __init__(self, shape: PairShape):
        """Build the adapters.

        Args:
            shape: Channels of the compared layers.

        Raises:
            ValueError: The networks do not have the same number of layers, at least one.
        """
        super().__init__(shape)
        if len(shape.student_channels) != len(shape.teacher_channels) or not shape.student_channels:
            raise ValueError(
                f"student and teacher must have the same number of compared layers, at least one, not "
                f"{len(shape.student_channels)} and {len(shape.teacher_channels)}"
            )
        self.align = nn.ModuleList(
            adapter(cs, ct, self.bias, selected=shape.selected)
            for cs, ct in zip(shape.student_channels, shape.teacher_channels, strict=True)
        )

    def pairs(
        self, student: Outputs, teacher: Outputs, images: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Aligned map of the student and detached map of the teacher, (N, C_t, H, W) both, of each level.

        Args:
            student: Outputs of the student.
            teacher: Outputs of the teacher.
            images: Numbers of the images to compare; None for all.

        Raises:
            ValueError: The number of maps does not fit.
        """
        if not len(self.align) == len(student.feats) == len(teacher.feats):
            raise ValueError(
                f"the term was built for {len(self.align)} layers but got {len(student.feats)} maps of the student and "
                f"{len(teacher.feats)} of the teacher"
            )
        for align, fs, ft in zip(self.align, student.feats, teacher.feats, strict=True):
            if images is not None:
                fs, ft = fs[images], ft[images]
            yield align(fs), ft.detach()

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Distance between the aligned maps of one level, scalar."""
        raise NotImplementedError(f"{type(self).__name__} must implement compare")

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """Mean of :meth:`compare` over the levels; a term that compares all levels in one pass does so here."""
        pairs = enumerate(zip(students, teachers, strict=True))
        return torch.stack([self.compare(level, fs, ft, batch) for level, (fs, ft) in pairs]).mean()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """:meth:`compare_all` of the aligned maps."""
        students, teachers = zip(*self.pairs(student, teacher), strict=True)
        return self.compare_all(students, teachers, batch)


def adapter(student: int, teacher: int, bias: bool = False, *, selected: bool = False) -> nn.Conv2d:
    """1x1 convolution from the student's to the teacher's channels.

    It starts as the identity where both have the same channels; where the student began as a part of the teacher, its
    channels are compared with those that they were. Rows of the teacher's other channels start small: what they ask of
    the student means nothing before they have been learned. Otherwise all start at random.

    Args:
        student: Channels of the student, at most ``teacher`` if ``selected``.
        teacher: Channels of the teacher.
        bias: The convolution has a bias, 0 at first where weights are set.
        selected: The student began as a part of the teacher.
    """
    conv = nn.Conv2d(student, teacher, 1, bias=bias)
    if student == teacher or selected:
        with torch.no_grad():
            conv.weight *= UNKNOWN
            conv.weight[held_channels(student, teacher)] = torch.eye(student)[:, :, None, None]
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return conv


def mean(values: Tensor) -> Tensor:
    """Mean of all elements; 0, with a gradient, where there are none."""
    return values.sum() / max(1, values.numel())


def standardize(x: Tensor) -> Tensor:
    """Each channel to mean 0 and variance 1 over the batch and all places, without learned scale (fp32 or fp64).

    This is a batch normalization that always uses the statistics of the map at hand. Student and teacher maps differ in
    scale by nature, so they must not share statistics; and as the terms only ever run in training, running averages
    would never be read.

    Args:
        x: Maps, (N, C, H, W).
    """
    (x,) = exact(x.contiguous())  # then sums over the places read contiguous memory
    if x.numel() <= x.shape[1]:  # a single place, or no image: the variance is undefined, the distance is 0
        return x - x.detach()
    return nn.functional.batch_norm(x, None, None, training=True, eps=EPSILON)


def standardized(
    x: Tensor, *, layout: torch.memory_format = torch.contiguous_format
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """:func:`standardize` without automatic differentiation.

    Args:
        x: Maps, (N, C, H, W), fp32 or fp64.
        layout: Order in which the result is stored.

    Returns:
        The standardized maps, and the function that turns a gradient for them, or for their first channels alone, into
        that for as many channels of ``x``.
    """
    x = x.contiguous(memory_format=layout)
    out, mean, scale = torch.native_batch_norm(x, None, None, None, None, True, 0.0, EPSILON)

    def backward(gradient: Tensor) -> Tensor:
        c = gradient.shape[1]
        statistics = (None, None, None, mean[:c], scale[:c], True, EPSILON, [True, False, False])
        back: Tensor = torch.ops.aten.native_batch_norm_backward(gradient, x[:, :c], *statistics)[0]
        return back

    return out, backward


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in fp32, or unchanged if they are fp64: half precision overflows in exponentials and squares."""
    return tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)


def no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Block in which operations on the device of ``tensor`` keep the precision of their inputs."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def check_same_shape(what: str, student: Tensor, teacher: Tensor, dims: str) -> None:
    """Reject tensors that cannot be compared element by element.

    Args:
        what: Name of the tensors, for the message.
        student: Tensor of the student.
        teacher: Tensor of the teacher.
        dims: The expected dimensions in words, such as ``"N, C, H, W"``.

    Raises:
        ValueError: Different shapes, or another number of dimensions than ``dims`` names.
    """
    if student.shape != teacher.shape or student.dim() != dims.count(",") + 1:
        raise ValueError(
            f"{what} must have one shape ({dims}) in student and teacher, "
            f"but they are {tuple(student.shape)} and {tuple(teacher.shape)}"
        )


def check_same_maps(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` unless both networks have the same levels, and maps (N, C, H, W) of one shape in each."""
    if len(students) != len(teachers):
        raise ValueError(f"student and teacher must have the same levels, not {len(students)} and {len(teachers)}")
    for student, teacher in zip(students, teachers, strict=True):
        check_same_shape("feature maps", student, teacher, "N, C, H, W")
