"""PKD: distillation by the Pearson correlation of features (Cao et al., NeurIPS 2022, arXiv:2207.02039)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dfssd.batches import Batch
from dfssd.distillation.terms.base import FeatureTerm, check_same_maps, exact, no_autocast, standardized
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.levels import Maps, total


def pearson(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Half the squared distance between standardized maps: one minus the correlation of each channel.

        1/2 mean((std(F_s) - std(F_t))^2) = mean_c(1 - r_c)      in [0, 2], mean over the levels

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)

    def compute(*own: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps, back = zip(*(standardized(x) for x in own), strict=True)
        gap = Maps(maps)
        gap -= [standardized(x)[0] for x in theirs]
        scales = [1 / (x.numel() * len(gap)) for x in gap]
        gradient = gap * scales
        gap *= gradient
        return total(gap) / 2, [f(g) for f, g in zip(back, gradient, strict=True)]

    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(compute, exact(*students))


class Pearson(FeatureTerm):
    """PKD: correlation of each channel with the teacher's, whatever their means and scales."""

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`pearson` of all levels."""
        return pearson(students, teachers)
