"""Stratified distribution of units over parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_SWAPS_PER_UNIT = 30
_MOST_SWAPS = 30_000
"""Attempts of :func:`_swap`, which take a fraction of a second."""


def stratify(
    table: np.ndarray,
    weight: np.ndarray,
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    every_feature: bool = False,
) -> np.ndarray:
    """Distribute units over parts of the given sizes, keeping the share of every feature.

    Greedy iterative stratification (Sechidis et al., "On the stratification of multi-label data", 2011): the rarest
    open feature is served first, each of its units going to the part that lacks that feature most. A full part takes
    no more units, so that the sizes are met exactly if all units have weight 1. Swaps refine the result.

    Args:
        table: (n, F) count of each feature in each unit.
        weight: (n,) size of each unit.
        sizes: Size of each part; they add up to the sum of ``weight``.
        rng: Source of the order and of the swaps.
        every_feature: Give the first part at least one unit with every feature, even if its share is below one.

    Returns:
        (n,) part of each unit.
    """
    order = sorted(rng.permutation(len(table)).tolist(), key=lambda u: -weight[u])
    total = table.sum(0)
    room = np.array(sizes, dtype=float)
    wanted = room[:, None] / room.sum() * total[None]
    # A feature of at least three images goes to every part; a rarer one would be taken away from train.
    floor = np.where(total >= len(sizes), 1.0, 0.0)
    wanted = np.where((room > 0)[:, None], np.maximum(wanted, floor), 0.0)
    if every_feature:
        wanted[0] = np.maximum(wanted[0], np.minimum(total, 1.0))
    missing = wanted.copy()
    home = np.full(len(table), -1)

    def place(u: int, need: np.ndarray) -> None:
        fits = room >= weight[u]
        candidates = np.flatnonzero(fits if fits.any() else room == room.max())
        best = max(candidates.tolist(), key=lambda p: (need[p], room[p]))
        home[u] = best
        room[best] -= weight[u]
        missing[best] -= table[u]

    while (left := table[home < 0].sum(0)).any():
        rarest = int(np.argmin(np.where(left > 0, left, np.inf)))
        for u in order:
            if home[u] < 0 and table[u, rarest] > 0:
                place(u, missing[:, rarest])
    for u in order:
        if home[u] < 0:
            place(u, room)
    _swap(home, table, weight, wanted, rng)
    return home


def _swap(
    home: np.ndarray, table: np.ndarray, weight: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
) -> None:
    """Swap units of equal size between parts, in place, while that brings the features closer to what is wanted.

    The greedy pass serves the most common feature last, when little room is left to choose from; this evens it out.
    The cost is sum((found - wanted)^2 / wanted). No part loses its last unit with a feature.
    """
    n_parts = len(wanted)
    found = np.stack([table[home == p].sum(0) for p in range(n_parts)])
    scale = 1 / np.maximum(wanted, 1.0)
    for a, b in rng.integers(0, len(home), (min(_SWAPS_PER_UNIT * len(home), _MOST_SWAPS), 2)).tolist():
        p, q = home[a], home[b]
        if p == q or weight[a] != weight[b]:
            continue
        step = table[b] - table[a]
        if not step.any():
            continue
        gain = (step * (2 * (found[p] - wanted[p]) + step) * scale[p]).sum()
        gain += (step * (2 * (wanted[q] - found[q]) + step) * scale[q]).sum()
        lost = ((found[p] > 0) & (found[p] + step <= 0)) | ((found[q] > 0) & (found[q] - step <= 0))
        if gain < -1e-9 and not lost.any():
            found[p] += step
            found[q] -= step
            home[a], home[b] = q, p
