"""Mimic: the student's features must equal the teacher's (Li et al., CVPR 2017, "Mimicking very efficient network")."""

from __future__ import annotations

from torch import Tensor

from dfssd.batches import Batch
from dfssd.distillation.terms.base import FeatureTerm, check_same_shape, exact, no_autocast


def normalized_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance as a share of the teacher's variance.

        mean((F_s - F_t)^2) / (mean((F_t - m_c)^2) + 1e-6)      >= 0

    with the mean m_c of each channel over images and places. A student that knows these means only reaches 1,
    so the value is interpretable, and does not depend on the scale of the teacher.

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
        fs, ft = exact(student, teacher)
        if not fs.numel():
            return fs.sum()
        spread = (ft - ft.mean((0, 2, 3), keepdim=True)).square().mean()
        return (fs - ft).square().mean() / (spread + 1e-6)


class Mimic(FeatureTerm):
    """Mimic: normalized mean squared error between the features."""

    bias = True  # the means of the channels count

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`normalized_mse` of one level."""
        return normalized_mse(student, teacher)
