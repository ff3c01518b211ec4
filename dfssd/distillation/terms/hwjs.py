"""HW-JS: hierarchically weighted Jensen-Shannon divergence between feature maps (the feature term of DFSSD).

Each channel of a map is read as a distribution over the places of the image, so the student learns *where* the teacher
looks, whatever the scale of its activations. Three things differ from the published code: the divergence is a mean over
channels (a sum would let the widest layer dominate), the level weights carry no gradient, and the mixture
is formed in log space, since mixing probabilities with log-probabilities gives NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_choice, check_positive
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_shape, exact, no_autocast, standardize


class _JensenShannon(torch.autograd.Function):
    """Sum of the Jensen-Shannon divergences between the rows of two tables of logits, with its gradient in closed form.

    For P = softmax(z), M = (P + Q) / 2 and a = log(P / M)::

        dJS/dz = 1/2 P (a - sum P a)

    and the same for Q. Automatic differentiation gives the same numbers but keeps a dozen maps of the size of the
    features alive and passes over each of them, which made this the most expensive term of the recipe by far.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        """Logits (..., L) of both distributions -> scalar sum over all rows."""
        shares = [z.softmax(-1) for z in (first, second)]
        tiny = torch.finfo(first.dtype).tiny  # a share of 0 has a logarithm that is multiplied by 0
        mixture = (shares[0] + shares[1]).mul_(0.5).clamp_(min=tiny)
        total = first.new_zeros(())
        saved = []
        for needed, share in zip(ctx.needs_input_grad, shares):
            gap = (share / mixture).clamp_(min=tiny).log_()
            row = (share * gap).sum(-1, keepdim=True)
            total = total + 0.5 * row.sum()
            saved.append(gap.sub_(row).mul_(share).mul_(0.5) if needed else None)
        ctx.save_for_backward(*saved)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients for both tables of logits, as far as they are needed."""
        first, second = (None if g is None else g * outer[0] for g in ctx.saved_tensors)
        return first, second


def spatial_js(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """Jensen-Shannon divergence between spatial distributions, averaged over images and channels.

    With P, Q = softmax over H*W of student / tau and teacher / tau, and M = (P + Q) / 2::

        tau^2 / (N C) * sum_{n,c} 1/2 [KL(P || M) + KL(Q || M)]      in [0, tau^2 ln 2], symmetric

    Args:
        student: Standardized maps of the student, (N, C, H, W).
        teacher: Standardized maps of the teacher, same shape.
        tau: Temperature of the softmax; its square keeps the size of the gradient.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        student, teacher = exact(student, teacher)
        logits = [x.flatten(2) if tau == 1 else x.flatten(2) / tau for x in (student, teacher)]
        total: Tensor = _JensenShannon.apply(*logits)
        return tau**2 * total / max(1, student.shape[0] * student.shape[1])


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


class HierarchicalJS(FeatureTerm):
    """Feature term of DFSSD: where each channel looks, compared by Jensen-Shannon divergence (HW-JS).

    The adapters have no bias, which the standardization would remove.
    """

    def __init__(
        self,
        shape: PairShape,
        *,
        tau: float = 1.0,
        layer_temperature: float = 0.1,
        weights: str = "softmax",
        images: float = 1.0,
    ):
        """Build the adapters.

        Args:
            shape: Channels of the compared layers.
            tau: Temperature of the spatial softmax.
            layer_temperature: Temperature of the level weights.
            weights: "softmax" (levels weighted by their divergence) or "uniform" (all alike).
            images: Share of the images of a batch that are compared, in (0, 1], drawn anew for every batch. The term
                is a mean over images, so a subset estimates it; the maps of a whole batch are large.

        Raises:
            ValueError: An option has a wrong value, or the networks do not have the same number of layers.
        """
        super().__init__(shape)
        self.tau = check_positive("tau", tau)
        self.layer_temperature = check_positive("layer_temperature", layer_temperature)
        self.weights = check_choice("weights", weights, ("softmax", "uniform"))
        self.images = check_positive("images", images)
        if self.images > 1:
            raise ValueError(f"images={images} must be a share in (0, 1]")

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`spatial_js` of the standardized maps, in [0, tau^2 ln 2]."""
        with no_autocast(student):
            return spatial_js(standardize(student), standardize(teacher), self.tau)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Weighted mean of the divergences of all levels, in [0, tau^2 ln 2].

        Raises:
            ValueError: Number or size of the maps does not fit.
        """
        n, chosen = len(student.feats[0]), None
        if (some := max(1, round(self.images * n))) < n:
            chosen = torch.randperm(n)[:some].to(student.feats[0].device)
        pairs = enumerate(self.pairs(student, teacher, chosen))
        divergences = torch.stack([self.compare(level, fs, ft, batch) for level, (fs, ft) in pairs])
        if self.weights == "uniform":
            return divergences.mean()
        return (level_weights(divergences, self.layer_temperature) * divergences).sum()
