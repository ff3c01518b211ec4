"""Weights from gradients: each term gets the part of the student's gradient that it is meant to have.

Terms differ in scale by orders of magnitude, and so does one term between two networks, two data sets or the beginning
and the end of a training. A fixed weight that helps here hurts there. With ``balance=auto`` the weight follows from
what is measured every :data:`EVERY` batches::

    weight = share * |gradient of the detection loss| / |gradient of the unweighted term|

with L2 norms over all parameters of the student, smoothed as geometric means (:data:`DECAY`), since norms vary by
factors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

EVERY = 50
"""Batches between two measurements, after those of the self-test; each costs one backward pass for each term."""

DECAY = 0.8
"""What is kept of the smoothed logarithm of a norm in each measurement."""

MOST = 100.0
"""A weight is at most this multiple of the configured one: a term that hardly says anything is not shouted."""

DETECTION = "det"
"""Name of the detection loss among the terms."""


class GradientBalance:
    """The weights of the terms, from the measured gradient norms.

    Attributes:
        norms: Smoothed logarithm of the gradient norm of the detection loss (``det``) and of each unweighted term.
    """

    def __init__(self, weights: Mapping[str, float], shares: Mapping[str, float]):
        """Begin without any measurement.

        Args:
            weights: Configured weight of each term, > 0: in force until the first measurement, and the measure of
                :data:`MOST`.
            shares: Aimed gradient norm of each term, as a share of that of the detection loss, > 0.
        """
        self.weights, self.shares = dict(weights), dict(shares)
        self.norms: dict[str, float] = {}

    def update(self, norms: Mapping[str, float]) -> None:
        """Take one measurement: gradient norms of ``det`` and of the unweighted terms; a norm of 0 is no evidence."""
        for name, norm in norms.items():
            if norm > 0 and math.isfinite(norm):
                value = math.log(norm)
                before = self.norms.get(name, value)
                self.norms[name] = DECAY * before + (1 - DECAY) * value

    def weight(self, name: str) -> float:
        """Weight of a term now."""
        if name not in self.norms or DETECTION not in self.norms:
            return self.weights[name]
        aimed = math.log(self.shares[name]) + self.norms[DETECTION] - self.norms[name]
        return math.exp(min(aimed, math.log(MOST * self.weights[name])))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs."""
        return {"norms": dict(self.norms)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.norms = dict(state["norms"])
