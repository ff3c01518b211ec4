"""Weights from gradients: each term gets its intended share of the student's gradient.

Terms differ in scale by orders of magnitude, and so does one term between two networks, two data sets, or the start and
the end of a training. A fixed weight that helps in one place hurts in another. With ``balance=auto`` the weight follows
from measurements every :data:`EVERY` batches::

    weight = share * |gradient of the detection loss| / |gradient of the unweighted term|

with L2 norms over all parameters of the student, smoothed as geometric means (:data:`DECAY`), since norms vary by
factors. The share is a target: between two measurements the gradients change, most of all in the first batches, so
these are measured more often (:func:`is_due`). Norms of several terms do not add up where their gradients point in
different directions: together they weigh less than the sum of their shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dfssd.distributed import group

EVERY = 50
"""Batches between two measurements; each costs one backward pass for each term."""

EARLY = (0, 1, 2, 5, 10, 20, 35)
"""Batches with a measurement before the first :data:`EVERY` are over."""

PROBE_SCALE = 1024.0
"""Loss factor while gradients are measured, so that small ones survive half precision."""

SETTLE = 3
"""First measurements, each of which replaces the one before, since the network is still untrained."""

DECAY = 0.5
"""Weight of the smoothed logarithm of a norm in each later measurement."""

MOST = 100.0
"""A weight is at most this multiple of the configured one, so that a vanishing term is not amplified without bound."""

DETECTION = "det"
"""Name of the detection loss among the terms."""


def is_due(step: int) -> bool:
    """Whether the gradients are measured in batch ``step``, counted from 0 over the whole training."""
    return step in EARLY or step % EVERY == 0


class GradientBalance:
    """The weights of the terms, from the measured gradient norms.

    Attributes:
        norms: Smoothed logarithm of the gradient norm of the detection loss (``det``) and of each unweighted term.
        taken: Number of measurements of each.
    """

    def __init__(self, weights: Mapping[str, float], shares: Mapping[str, float]):
        """Begin without any measurement.

        Args:
            weights: Configured weight of each term, > 0: used until the first measurement, and the unit of
                :data:`MOST`.
            shares: Target gradient norm of each term, as a share of that of the detection loss, > 0.
        """
        self.weights, self.shares = dict(weights), dict(shares)
        self.norms: dict[str, float] = {}
        self.taken: dict[str, int] = {}

    def update(self, norms: Mapping[str, float]) -> None:
        """Add one measurement: gradient norms of ``det`` and of the unweighted terms; a norm of 0 is not counted."""
        for name, norm in norms.items():
            if norm > 0 and math.isfinite(norm):
                self.taken[name] = self.taken.get(name, 0) + 1
                kept = DECAY if self.taken[name] > SETTLE else 0.0
                self.norms[name] = kept * self.norms.get(name, 0.0) + (1 - kept) * math.log(norm)

    def weight(self, name: str) -> float:
        """Present weight of a term."""
        return min(self._target(name), MOST * self.weights[name])

    def _target(self, name: str) -> float:
        if name not in self.norms or DETECTION not in self.norms:
            return self.weights[name]
        return self.shares[name] * math.exp(min(self.norms[DETECTION] - self.norms[name], 700.0))

    def held_back(self) -> list[str]:
        """Terms that would need more than :data:`MOST` times their configured weight for their share."""
        return [name for name, weight in self.weights.items() if self._target(name) > MOST * weight]

    def state_dict(self) -> dict[str, Any]:
        """The state for a resumed training."""
        return {"norms": dict(self.norms), "taken": dict(self.taken)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.norms, self.taken = dict(state["norms"]), dict(state["taken"])


def gradient_norms(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[str, float]:
    """L2 norm of the gradient that each loss puts on ``parameters``, mean over the processes."""
    norms = {}
    for name, loss in losses.items():
        if not loss.requires_grad:
            norms[name] = loss.new_zeros(())
            continue
        with torch.autocast(loss.device.type, enabled=False):  # as in the real backward pass: it would cast to half
            grads = torch.autograd.grad(loss.sum() * PROBE_SCALE, parameters, retain_graph=True, allow_unused=True)
        squares = [g.float().norm() for g in grads if g is not None] or [loss.new_zeros(())]
        norms[name] = torch.stack(squares).norm() / PROBE_SCALE
    table = group.mean_of(torch.stack([norm.float() for norm in norms.values()]))
    return dict(zip(norms, table.tolist(), strict=True))
