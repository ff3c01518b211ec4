"""The face of a distillation term, and the few checks and casts that all terms share.

A term is one method: its mathematics as a pure function, and a thin module that feeds it and owns its trainable
adapters. Weight, schedule and the factor N of Ultralytics' batch loss are applied outside, alike for all terms.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfssd.distillation.outputs import Outputs


@dataclass(frozen=True)
class PairShape:
    """What a term must know of the two networks before their first batch.

    Attributes:
        student_channels: Channels of each of the student's compared layers.
        teacher_channels: The same for the teacher.
        reg_max: Bins of the box distribution, equal in both.
        nc: Classes, equal in both.
    """

    student_channels: tuple[int, ...]
    teacher_channels: tuple[int, ...]
    reg_max: int
    nc: int


class Term(nn.Module):
    """Base class of all terms.

    A subclass takes its options as keyword arguments with defaults and annotations: the strict configuration and
    ``--help`` read them, and the first line of the class docstring, from there. Option values are checked in the
    constructor, with a ``ValueError`` of one sentence.
    """

    def __init__(self, shape: PairShape):
        super().__init__()
        self.shape = shape

    def forward(self, student: Outputs, teacher: Outputs, batch: dict[str, Any]) -> Tensor:
        """Value of the term for one batch.

        Args:
            student: Outputs of the student, with gradient.
            teacher: Outputs of the teacher; no gradient is sent back into them.
            batch: Training batch as Ultralytics builds it, for terms that look at boxes.

        Returns:
            Scalar in at least fp32, a mean over the images of the batch (not multiplied by N), finite.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward")


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in fp32, or unchanged if they are fp64: half precision overflows in exponentials and squares."""
    return tuple(t if t.dtype == torch.float64 else t.float() for t in tensors)


def no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager:
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


def check_positive(name: str, value: Any) -> float:
    """``value`` as a float.

    Raises:
        ValueError: It is not a number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be a number > 0")
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """``value`` itself.

    Raises:
        ValueError: It is not among ``choices``.
    """
    if value not in choices:
        raise ValueError(f"{name}={value} must be one of: {', '.join(choices)}")
    return value
