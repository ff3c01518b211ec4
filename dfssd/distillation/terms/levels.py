"""Arithmetic over the maps of all levels at once, and values that bring their gradient along.

The maps of a level differ in size from those of the next, so one operator cannot take them all; PyTorch's ``_foreach``
operators can. With them a formula costs as many launches as it has operations, not as many times the levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class Maps(tuple[Tensor, ...]):
    """One tensor per level, with elementwise arithmetic between two such lists, with one number, or one per level.

    ``a += b`` and the like change the tensors of ``a``.
    """

    __slots__ = ()

    def __add__(self, other: Any) -> Maps:
        """Sum."""
        return Maps(torch._foreach_add(self, other))

    def __sub__(self, other: Any) -> Maps:
        """Difference."""
        return Maps(torch._foreach_sub(self, other))

    def __mul__(self, other: Any) -> Maps:
        """Product."""
        return Maps(torch._foreach_mul(self, other))

    def __iadd__(self, other: Any) -> Maps:
        """Sum, in place."""
        torch._foreach_add_(self, other)
        return self

    def __isub__(self, other: Any) -> Maps:
        """Difference, in place."""
        torch._foreach_sub_(self, other)
        return self

    def __imul__(self, other: Any) -> Maps:
        """Product, in place."""
        torch._foreach_mul_(self, other)
        return self

    def __itruediv__(self, other: Any) -> Maps:
        """Quotient, in place."""
        torch._foreach_div_(self, other)
        return self

    def add_product(self, a: Sequence[Tensor], b: Sequence[Tensor], factor: float = 1.0) -> Maps:
        """Add ``factor * a * b``, in place."""
        torch._foreach_addcmul_(self, tuple(a), tuple(b), factor)
        return self


def mean_square(maps: Sequence[Tensor]) -> Tensor:
    """Mean over the levels of mean(x^2); 0 if one of them is empty."""

    def compute(*own: Tensor) -> tuple[Tensor, Maps]:
        gradient = Maps(own) * [2 / (x.numel() * len(own)) for x in own]
        return total(gradient * own) / 2, gradient

    return closed_form(compute, maps)


def total(maps: Iterable[Tensor]) -> Tensor:
    """Sum of all elements of all levels."""
    return torch.stack([x.sum() for x in maps]).sum()


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
