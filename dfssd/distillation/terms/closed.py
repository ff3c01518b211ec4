"""Scalar functions whose gradient is known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class _Closed(torch.autograd.Function):
    """A scalar function that computes its gradient along with its value."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., tuple[Tensor, Sequence[Tensor]]], *inputs: Tensor) -> Tensor:
        """Value; the gradients are kept, nothing else."""
        value, gradients = compute(*inputs)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients times that of the value."""
        return None, *torch._foreach_mul(ctx.saved_tensors, outer[0])


def closed_form(compute: Callable[..., tuple[Tensor, Sequence[Tensor]]], inputs: Iterable[Tensor]) -> Tensor:
    """Value of a scalar function whose gradient is known in closed form.

    Automatic differentiation gives the same numbers, but keeps the intermediate results of a formula alive until the
    backward pass, and launches about two operators there for each of the forward pass.

    Args:
        compute: Detached ``inputs`` -> the scalar, and its gradient for each of them.
        inputs: Tensors; if one of them is empty, the value is 0, and ``compute`` is not called.

    Returns:
        The scalar, which can be differentiated once, as often as needed.
    """
    tensors = list(inputs)
    if not all(t.numel() for t in tensors):
        return torch.stack([t.sum() for t in tensors]).sum() * 0.0
    value: Tensor = _Closed.apply(compute, *tensors)
    return value
