"""CWD: channel-wise knowledge distillation (Shu et al., ICCV 2021, arXiv:2011.13256)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_positive
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_maps, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.levels import Maps


def channel_kl(students: Sequence[Tensor], teachers: Sequence[Tensor], tau: float = 1.0) -> Tensor:
    """KL divergence between spatial distributions, averaged over images, channels, and levels.

    With P = softmax over H*W of student / tau and Q of teacher / tau::

        tau^2 / (N C) * sum_{n,c} KL(Q || P)      >= 0,      with the gradient tau / (N C) (P - Q)

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.
        tau: Temperature; high ones spread the weight over all places, low ones focus on the peaks.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)

    def logs(maps: Sequence[Tensor]) -> Maps:
        flat = [x.flatten(2) for x in maps]
        return Maps(x.log_softmax(2) for x in (flat if tau == 1 else Maps(flat) * (1 / tau)))

    def compute(*own: Tensor) -> tuple[Tensor, list[Tensor]]:
        scales = [tau / (len(x) * x.shape[1] * len(own)) for x in own]
        log_p, log_q = logs(own), logs(theirs)
        q = Maps(torch._foreach_exp(log_q))
        log_q -= log_p
        log_q *= q
        parts = [x.sum() for x in log_q]
        value = torch.stack(torch._foreach_mul(parts, [tau * scale for scale in scales])).sum()
        torch._foreach_exp_(log_p)
        log_p -= q
        log_p *= scales
        return value, [g.view(x.shape) for g, x in zip(log_p, own, strict=True)]

    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(compute, exact(*students))


class ChannelWise(FeatureTerm):
    """CWD: where each channel looks, compared by the Kullback-Leibler divergence."""

    def __init__(self, shape: PairShape, *, tau: float = 1.0):
        """Build the adapters; they have no bias, to which a softmax over places is invariant.

        Args:
            shape: Channels of the compared layers.
            tau: Temperature.

        Raises:
            ValueError: ``tau`` is not a number above 0.
        """
        super().__init__(shape)
        self.tau = check_positive("tau", tau)

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`channel_kl` of all levels."""
        return channel_kl(students, teachers, self.tau)
