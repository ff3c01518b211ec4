"""HW-JS: hierarchically weighted Jensen-Shannon divergence between feature maps (the feature term of DFSSD).

Each channel of a map is read as a distribution over the places of the image, so the student learns *where* the teacher
looks, whatever the scale of its activations. Three things differ from the published code: the divergence is a mean over
channels (a sum would let the widest layer take all the weight), the level weights carry no gradient, and the mixture
is formed in log space, since mixing probabilities with log-probabilities gives NaN.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import (
    PairShape,
    Term,
    check_choice,
    check_positive,
    check_same_shape,
    exact,
    no_autocast,
)


def standardize(x: Tensor) -> Tensor:
    """Each channel to mean 0 and variance 1 over the batch and all places, without learned scale (fp32 or fp64).

    This is a batch normalisation that always uses the statistics of the map at hand. Student and teacher maps differ in
    scale by nature, so they must not share statistics; and as the terms only ever run in training, running averages
    would never be read.

    Args:
        x: Maps, (N, C, H, W).
    """
    (x,) = exact(x)
    if x.numel() <= x.shape[1]:  # one place in all, or no image: the variance is not defined, the divergence is 0
        return x - x.detach()
    return F.batch_norm(x, None, None, training=True)


def spatial_js(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """Jensen-Shannon divergence between spatial distributions, averaged over images and channels.

    With P, Q = softmax over H*W of student / tau and teacher / tau, and M = (P + Q) / 2::

        tau^2 / (N C) * sum_{n,c} 1/2 [KL(P || M) + KL(Q || M)]      in [0, tau^2 ln 2], symmetric

    Args:
        student: Standardised maps of the student, (N, C, H, W).
        teacher: Standardised maps of the teacher, same shape.
        tau: Temperature of the softmax; its square keeps the size of the gradient.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        student, teacher = exact(student, teacher)
        log_p = F.log_softmax(student.flatten(2) / tau, dim=-1)
        log_q = F.log_softmax(teacher.flatten(2) / tau, dim=-1)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        divergence = 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m))
        return tau**2 * divergence.sum() / max(1, student.shape[0] * student.shape[1])


def level_weights(divergences: Tensor, temperature: float = 0.1) -> Tensor:
    """Weights of the levels: softmax(divergence / temperature), so that the level furthest from the teacher leads.

    They carry no gradient: with one, the term could be lowered by moving weight instead of features.

    Args:
        divergences: One value per level, (L,).
        temperature: Below about 0.1 the largest divergence takes nearly all; near 1 the weights are almost equal.

    Returns:
        (L,), non-negative, sum 1.
    """
    return torch.softmax(divergences.detach() / temperature, dim=0)


class HierarchicalJS(Term):
    """Feature term of DFSSD: where each channel looks, compared by Jensen-Shannon divergence (HW-JS).

    A 1x1 convolution per level maps the student's channels to the teacher's. It has no bias, which the
    standardisation would take out again.
    """

    def __init__(self, shape: PairShape, *, tau: float = 1.0, layer_temperature: float = 0.1, weights: str = "softmax"):
        """Build the adapters.

        Args:
            shape: Channels of the compared layers.
            tau: Temperature of the spatial softmax.
            layer_temperature: Temperature of the level weights.
            weights: "softmax" (levels weighted by their divergence) or "uniform" (all alike).

        Raises:
            ValueError: An option has a wrong value, or the networks do not have the same number of layers.
        """
        super().__init__(shape)
        if len(shape.student_channels) != len(shape.teacher_channels) or not shape.student_channels:
            raise ValueError(
                f"student and teacher must have the same number of compared layers, at least one, not "
                f"{len(shape.student_channels)} and {len(shape.teacher_channels)}"
            )
        self.tau = check_positive("tau", tau)
        self.layer_temperature = check_positive("layer_temperature", layer_temperature)
        self.weights = check_choice("weights", weights, ("softmax", "uniform"))
        self.align = nn.ModuleList()
        for cs, ct in zip(shape.student_channels, shape.teacher_channels, strict=True):
            conv = nn.Conv2d(cs, ct, 1, bias=False)
            if cs == ct:  # networks of equal width start with nothing in between
                nn.init.dirac_(conv.weight)
            self.align.append(conv)

    def forward(self, student: Outputs, teacher: Outputs, batch: dict[str, Any]) -> Tensor:
        """Weighted mean of the divergences of all levels, in [0, tau^2 ln 2].

        Raises:
            ValueError: Number or size of the maps does not fit.
        """
        if not len(self.align) == len(student.feats) == len(teacher.feats):
            raise ValueError(
                f"the term was built for {len(self.align)} layers but got {len(student.feats)} maps of the student and "
                f"{len(teacher.feats)} of the teacher"
            )
        values = []
        for align, fs, ft in zip(self.align, student.feats, teacher.feats, strict=True):
            aligned = align(fs)
            with no_autocast(fs):
                values.append(spatial_js(standardize(aligned), standardize(ft.detach()), self.tau))
        divergences = torch.stack(values)
        if self.weights == "uniform":
            return divergences.mean()
        return (level_weights(divergences, self.layer_temperature) * divergences).sum()
