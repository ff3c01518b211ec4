"""The losses of a batch in one pass, with their gradient in closed form.

Taken one by one (:mod:`dfssd.segmentation.losses`) they compute five softmax functions and dispatch a hundred operators
with their backward pass. A network of a million parameters is limited on a GPU by the number of operators, not by
arithmetic: here the losses share probabilities, one-hot mask, and counts, and the gradient is written down instead of
traced. With the notation of that module, m = 1 on the M pixels of known class, k = 1 on the K pixels of distillation:

    dL/dz = w_ce (m p - y) / M  +  m p (G - sum_c p_c G_c)  +  w_kd k (q_s - q_t) / (tau K)

    G_c = w_dice ((2 a_c + 1) / (b_c + 1) - 2 y_c) / (b_c + 1)  +  w_boundary m phi_c / M          (G_0 = 0)

    a_c = sum m p_c y_c,     b_c = sum m p_c + sum y_c     (over the batch),     q = softmax(z / tau)

It is kept for the backward pass instead of everything that it is made of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dfssd.datasets.records import IGNORE


class Weights(NamedTuple):
    """Weights of the losses, at least 0; one of weight 0 is not computed."""

    ce: float
    dice: float
    boundary: float
    kd: float


class CombinedLosses(torch.autograd.Function):
    """``(sum of the weighted losses, the losses themselves)`` of a batch; the second has no gradient."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        """The sum, a scalar, and the weighted losses, (4,); arguments as for :func:`losses_and_gradient`."""
        losses, gradient = losses_and_gradient(*given)
        ctx.given = len(given)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient at the logits, the first argument."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer, *[None] * (ctx.given - 1)


def losses_and_gradient(
    logits: Tensor,
    mask: Tensor,
    maps: Tensor | None,
    teacher: Tensor | None,
    kd_pixels: Tensor | None,
    weights: Weights,
    factors: Tensor,
    tau: float,
) -> tuple[Tensor, Tensor]:
    """The losses of one batch, and the gradient of their sum.

    Args:
        logits: z, (N, nc, H, W), fp32 or fp64.
        mask: Class ids, (N, H, W), integer: 0 to nc - 1, or 255 for ignored pixels.
        maps: phi, (N, nc - 1, H, W), of the type of ``logits``; not read if the boundary loss has no weight.
        teacher: Logits of the teacher, like ``logits``; not read if distillation has no weight.
        kd_pixels: Pixels of distillation, (N, H, W) bool; None: those of known class.
        weights: Of the losses.
        factors: The same on the device, (4,): a copy in every step would make the host wait.
        tau: Temperature of the distillation, above 0.

    Returns:
        The weighted losses, (4,), in the order of :class:`Weights`, and dL/dz, (N, nc, H, W).
    """
    known = (mask != IGNORE)[:, None]
    share = _share(known, logits)
    values: list[Tensor | None] = [None] * 4
    gradient = None
    if weights.ce or weights.dice or weights.boundary:
        values[:3], gradient = _of_the_mask(logits, mask, known, share, maps, weights)
    if weights.kd:
        assert teacher is not None
        where = known * share if kd_pixels is None else kd_pixels[:, None] * _share(kd_pixels, logits)
        values[3], slope = _of_the_teacher(logits, teacher, where, tau)
        factor = weights.kd / tau
        gradient = slope.mul_(factor) if gradient is None else gradient.add_(slope, alpha=factor)
    assert gradient is not None
    # with a factor of 0 any finite number does for a loss that was not computed
    losses = torch.stack([share if value is None else value for value in values]).mul_(factors)
    return losses, gradient


def _share(pixels: Tensor, like: Tensor) -> Tensor:
    """1 / number of the pixels, of the type of ``like``; 1 where there are none."""
    return pixels.sum(dtype=like.dtype).clamp_(min=1).reciprocal_()


def _of_the_mask(
    z: Tensor, mask: Tensor, known: Tensor, share: Tensor, maps: Tensor | None, weights: Weights
) -> tuple[list[Tensor | None], Tensor]:
    """Cross entropy, Dice and boundary, None if without weight, and the gradient of their weighted sum."""
    ce, dice, boundary = None, None, None
    log_p = z.log_softmax(1)
    p = log_p.exp().mul_(known)
    y = (mask[:, None] == torch.arange(z.shape[1], device=z.device)[:, None, None]).to(z.dtype)
    pull: Tensor | None = None  # G
    if weights.dice:
        size = p.sum((0, 2, 3)).add_(y.sum((0, 2, 3))).add_(1)[1:]
        ratio = torch.rsub((p * y).sum((0, 2, 3)), 1, alpha=-2)[1:] / size
        dice = (1 - ratio).sum()
        each = size.reciprocal().mul_(weights.dice)
        pull = torch.addcmul((ratio * each)[:, None, None], y[:, 1:], each[:, None, None], value=-2)
    if weights.boundary:
        assert maps is not None
        boundary = (p[:, 1:] * maps).sum().mul_(share)
        if pull is None:
            pull = maps * (share * weights.boundary)
        else:
            pull.addcmul_(maps, share, value=weights.boundary)
    slope = p - y
    if weights.ce:
        ce = F.nll_loss(log_p, mask.long(), ignore_index=IGNORE, reduction="sum").mul_(share)
        slope.mul_(share if weights.ce == 1 else share * weights.ce)
    else:
        slope.zero_()
    if pull is not None:
        pull.mul_(p[:, 1:])  # 0 where a pixel is ignored, as p is
        slope.addcmul_(p, pull.sum(1, keepdim=True), value=-1)
        slope[:, 1:].add_(pull)
    return [ce, dice, boundary], slope


def _of_the_teacher(z: Tensor, teacher: Tensor, where: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Distillation without its weight, and tau times its gradient; ``where`` is k / K, (N, 1, H, W)."""
    logs = torch.stack([z, teacher]).div_(tau).log_softmax(2)
    student, target = logs.exp().unbind()
    value = torch.sub(logs[1], logs[0]).mul_(target).mul_(where).sum()
    return value, (student - target).mul_(where)
