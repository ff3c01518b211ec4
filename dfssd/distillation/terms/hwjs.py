"""HW-JS: hierarchically weighted Jensen-Shannon divergence between feature maps (the feature term of DFSSD).

Each channel of a map is read as a distribution over the places of the image, so the student learns *where* the teacher
looks, whatever the scale of its activations. Three things differ from the published code: the divergence is a mean over
channels (a sum would let the widest layer dominate), the level weights carry no gradient, and the mixture
is formed in log space, since mixing probabilities with log-probabilities gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_choice, check_positive
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import (
    FeatureTerm,
    PairShape,
    check_same_shape,
    exact,
    no_autocast,
    standardized,
)
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.transfer import to_device


def _shares(logits: Tensor, tau: float) -> Tensor:
    return (logits if tau == 1 else logits / tau).softmax(-1)


def _divergence(shares: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Sums of Jensen-Shannon divergences, with their gradient in closed form.

    For P = softmax(z), M = (P + Q) / 2 and a = log(P / M)::

        dJS/dz = 1/2 P (a - sum P a)

    and the same for Q. Automatic differentiation gives the same numbers but keeps a dozen maps of the size of the
    features alive and passes over each of them.

    Args:
        shares: Both distributions, (N, 2, C, L), fp32 or fp64: softmax(z / tau).
        tau: Temperature.

    Returns:
        The sum over images and channels, scalar, and its gradient for the logits z of both.
    """
    tiny = torch.finfo(shares.dtype).tiny  # a share of 0 has a logarithm that is multiplied by 0
    mixture = shares.sum(1, keepdim=True).mul_(0.5).clamp_(min=tiny)
    gap = (shares / mixture).clamp_(min=tiny).log_()
    del mixture  # maps are large
    places = shares.shape[-1]
    row = torch.bmm(shares.view(-1, 1, places), gap.view(-1, places, 1)).view(*shares.shape[:-1], 1)
    return 0.5 * row.sum(), gap.sub_(row).mul_(shares).mul_(0.5 / tau)


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
        factor = tau**2 / max(1, student.shape[0] * student.shape[1])

        def compute(first: Tensor, second: Tensor) -> tuple[Tensor, list[Tensor]]:
            total, gradient = _divergence(_shares(torch.stack([first.flatten(2), second.flatten(2)], 1), tau), tau)
            return factor * total, [factor * g.view_as(first) for g in gradient.unbind(1)]

        return closed_form(compute, exact(student, teacher))


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

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Weighted mean of :func:`spatial_js` of the standardized maps over all levels, in [0, tau^2 ln 2].

        Raises:
            ValueError: Number or size of the maps does not fit.
        """
        n, chosen = len(student.feats[0]), None
        if (some := max(1, round(self.images * n))) < n:
            drawn = torch.randperm(n)[:some].numpy()
            chosen = to_device({"images": drawn}, student.feats[0].device)["images"]
        own, theirs = zip(*self.pairs(student, teacher, chosen), strict=True)
        for fs, ft in zip(own, theirs, strict=True):
            check_same_shape("feature maps", fs, ft, "N, C, H, W")
        with no_autocast(own[0]):
            return closed_form(lambda *maps: self._compare(maps, theirs), own)

    def _compare(self, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The value, and its gradient for the aligned maps of the student."""
        totals, gradients = [], []
        for fs, ft in zip(own, theirs, strict=True):
            # both networks in one pass: the statistics of a channel do not depend on the other ones
            (maps,) = exact(torch.cat([fs, ft.to(fs.dtype)], 1))
            both, back = standardized(maps)
            n, channels = fs.shape[:2]
            shares = _shares(both.view(n, 2, channels, -1), self.tau)
            del both
            total, gradient = _divergence(shares, self.tau)
            del shares
            totals.append(total * (self.tau**2 / (n * channels)))
            gradients.append(back(gradient[:, 0].reshape(fs.shape)))
        divergences = torch.stack(totals)
        if self.weights == "uniform":
            weights = torch.full_like(divergences, 1 / len(totals))
        else:
            weights = level_weights(divergences, self.layer_temperature)
        factors = weights.unbind()
        scaled = [g.mul_(w * (self.tau**2 / (len(g) * g.shape[1]))) for g, w in zip(gradients, factors, strict=True)]
        return (weights * divergences).sum(), scaled
