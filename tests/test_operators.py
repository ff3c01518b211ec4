"""Counting operators: what launches, what only gives a view, and what makes the host wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dfssd.benchmark.operators import count_operators


def test_views_launch_nothing() -> None:
    """Three operators compute; transpose, slice and detach only give views."""
    x = torch.rand(4, 5)
    counted = count_operators(lambda: (x.t()[1:].detach() * 2 + 1).sum())
    assert counted.launched == 3
    assert sum(counted.by_name.values()) == 6
    assert counted.waits == 0


def test_backward_is_counted() -> None:
    """``x * x``: one operator forward, and at least one for the gradient."""
    x = torch.rand(3, requires_grad=True)
    forward = count_operators(lambda: x * x).launched
    both = count_operators(lambda: (x * x).sum().backward()).launched
    assert forward == 1
    assert both > 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.max()),
        lambda x: x[x > 0.5],
        lambda x: x.nonzero(),
        lambda x: torch.unique(x),
        lambda x: torch.equal(x, x),
        lambda x: x.masked_select(x > 0.5),
    ],
)
def test_waits(function: Callable[[torch.Tensor], object]) -> None:
    """What the host has to read is a wait; the same arithmetic without it is none."""
    x = torch.rand(8)
    assert count_operators(lambda: function(x)).waits >= 1
    assert count_operators(lambda: torch.where(x > 0.5, x, 0.0)).waits == 0
    assert count_operators(lambda: x[torch.tensor([0, 1])]).waits == 0
