"""Mimic: the student's features must equal the teacher's (Li et al., CVPR 2017, "Mimicking very efficient network")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.distillation.terms.base import FeatureTerm, check_same_maps, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.levels import Maps, total


def normalized_mse(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Squared distance as a share of the teacher's variance, mean over the levels.

        mean((F_s - F_t)^2) / (mean((F_t - m_c)^2) + 1e-6)      >= 0

    with the mean m_c of each channel over images and places. A student that knows these means only reaches 1,
    so the value is interpretable, and does not depend on the scale of the teacher.

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)

    def compute(*own: Tensor) -> tuple[Tensor, Maps]:
        gap = Maps(own) - theirs
        spread = torch.stack([t.var((0, 2, 3), correction=0).mean() for t in theirs]).add_(1e-6)
        gradient = gap * [2 / (x.numel() * len(own)) for x in own]
        gradient *= spread.reciprocal_().unbind()
        gap *= gradient
        return total(gap) / 2, gradient

    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(compute, exact(*students))


class Mimic(FeatureTerm):
    """Mimic: normalized mean squared error between the features."""

    bias = True  # the means of the channels count

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`normalized_mse` of all levels."""
        return normalized_mse(students, teachers)
