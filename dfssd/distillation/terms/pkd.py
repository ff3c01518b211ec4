"""PKD: distillation by the Pearson correlation of features (Cao et al., NeurIPS 2022, arXiv:2207.02039)."""

from __future__ import annotations

from torch import Tensor

from dfssd.batches import Batch
from dfssd.distillation.terms.base import FeatureTerm, check_same_shape, mean, no_autocast, standardize


def pearson(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the squared distance between standardized maps: one minus the correlation of each channel.

        1/2 mean((std(F_s) - std(F_t))^2) = mean_c(1 - r_c)      in [0, 2]

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        return mean((standardize(student) - standardize(teacher)).square()) / 2


class Pearson(FeatureTerm):
    """PKD: correlation of each channel with the teacher's, whatever their means and scales."""

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`pearson` of one level."""
        return pearson(student, teacher)
