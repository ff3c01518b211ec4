"""Arithmetic over the maps of all levels at once.

The maps of a level differ in size from those of the next, so one operator cannot take them all; PyTorch's ``_foreach``
operators can. With them a formula costs as many launches as it has operations, not as many times the levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dfssd.distillation.terms.closed import closed_form


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

    def __truediv__(self, other: Any) -> Maps:
        """Quotient."""
        return Maps(torch._foreach_div(self, other))

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


def rows(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) as (N, H W, C): a view, if they are stored with the channels innermost."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_maps(x: Tensor, height: int, width: int) -> Tensor:
    """Places (N, H W, C) as maps (N, C, H, W), a view."""
    return x.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def mean_square(maps: Sequence[Tensor]) -> Tensor:
    """Mean over the levels of mean(x^2); 0 if one of them is empty."""

    def compute(*own: Tensor) -> tuple[Tensor, Maps]:
        gradient = Maps(own) * [2 / (x.numel() * len(own)) for x in own]
        return total(gradient * own) / 2, gradient

    return closed_form(compute, maps)


def total(maps: Iterable[Tensor]) -> Tensor:
    """Sum of all elements of all levels."""
    return torch.stack([x.sum() for x in maps]).sum()
