"""CWD: channel-wise knowledge distillation (Shu et al., ICCV 2021, arXiv:2011.13256)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_positive
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_shape, exact, no_autocast


def channel_kl(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """KL divergence between spatial distributions, averaged over images and channels.

    With P = softmax over H*W of student / tau and Q of teacher / tau::

        tau^2 / (N C) * sum_{n,c} KL(Q || P)      >= 0

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.
        tau: Temperature; high ones spread the weight over all places, low ones focus on the peaks.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        log_p, log_q = (F.log_softmax(x.flatten(2) / tau, 2) for x in exact(student, teacher))
        total = (log_q.exp() * (log_q - log_p)).sum()
        return tau**2 * total / max(1, student.shape[0] * student.shape[1])


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

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`channel_kl` of one level."""
        return channel_kl(student, teacher, self.tau)
