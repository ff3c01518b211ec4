"""How far a difference between two networks depends on which test images were drawn.

A paired bootstrap: the test images are drawn again, with replacement, the same ones for all networks, and the scores of
all are recomputed on each draw. The interval covers the choice of the test images, not the training seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

import numpy as np

DRAWS = 1000
"""Draws of the test images."""
LEVEL = 0.95
"""Share of the draws inside an interval."""
METHOD = "paired bootstrap over the test images"

_Name = TypeVar("_Name", bound=str)
Interval = tuple[float, float]
"""Lower and upper end."""


class Measured(Protocol):
    """What a network did on each test image, from which its scores on any draw of these images follow."""

    @property
    def images(self) -> tuple[str, ...]:
        """File names of the images, in the order of their numbers."""

    def scores(self, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The scores on one or several draws.

        Args:
            draws: (R, N) int, how often each of the N images was drawn; None: each once.

        Returns:
            Name of a score -> (R,) values; NaN where a draw has nothing to be measured on.
        """

    def same_truth(self, other: object) -> bool:
        """Whether the two were measured against the same truth, so that their scores can be paired."""


def intervals(
    measured: Mapping[_Name, Measured],
    pairs: Iterable[tuple[_Name, _Name]],
    *,
    rounds: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[tuple[_Name, _Name], dict[str, Interval]]:
    """Bootstrap percentile intervals of differences, the first network of a pair less the second.

    Args:
        measured: Name -> what that network did, all on the same images.
        pairs: Which networks are compared.
        rounds: Draws of the test images.
        seed: Seed of the draws; the same seed draws the same images for all networks.
        level: Share of the draws inside an interval, (0, 1).

    Returns:
        Pair -> name of a score -> its interval; a score that no draw can measure is left out.

    Raises:
        ValueError: Two networks of a pair were not measured on the same images.
    """
    pairs = list(pairs)
    for a, b in pairs:
        if measured[a].images != measured[b].images or not measured[a].same_truth(measured[b]):
            raise ValueError(f"{a} and {b} were not measured on the same images: no paired comparison is possible")
    drawn: dict[_Name, dict[str, np.ndarray]] = {}
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        n = len(measured[name].images)
        draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=rounds)
        drawn[name] = measured[name].scores(draws)
    found: dict[tuple[_Name, _Name], dict[str, Interval]] = {}
    for a, b in pairs:
        found[a, b] = {}
        for score, values in drawn[a].items():
            differences = values - drawn[b][score]
            differences = differences[~np.isnan(differences)]
            if len(differences):
                low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
                found[a, b][score] = float(low), float(high)
    return found
