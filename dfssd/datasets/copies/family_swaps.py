"""Families of turned and mirrored copies are brought to one side of a split, which changes as little as possible."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Unit = list[int]
"""Indices of the images of one group, which are kept together."""

_Unit = tuple[int, ...]

_HELD = ("test", "val")
"""Parts that are not trained on, in the order in which they attract a torn family."""


def reunited(
    parts: Mapping[str, Sequence[Unit]], families: Sequence[int], features: Callable[[Sequence[int]], np.ndarray]
) -> dict[str, list[Unit]] | None:
    """The parts of a split in which no family is divided between train and val or test.

    The units of the smaller side of a torn family (of train, if both are equal) change places with units of the other
    side: the first ones of the same size and with the same classes that have no family. So no part changes its size or
    its classes, and a split without torn families does not change at all.

    Args:
        parts: The units of each part: "val", "test", and others, which are trained on.
        families: Number of the family of each image; the images of a unit are of one family.
        features: The counts of classes of a unit, which units that change places have in common.

    Returns:
        The parts, units in the order of their first image; None if units have no others to change places with.
    """
    home = {tuple(unit): name for name, units in parts.items() for unit in units}
    ordered = sorted(home)
    kin: dict[int, list[_Unit]] = defaultdict(list)
    for unit in ordered:
        kin[families[unit[0]]].append(unit)

    def kind(unit: _Unit) -> tuple[int, ...]:
        return len(unit), *(int(count) for count in features(unit))

    torn = [members for members in kin.values() if len({home[unit] in _HELD for unit in members}) > 1]
    single: dict[tuple[str, tuple[int, ...]], list[_Unit]] = defaultdict(list)
    for unit in reversed(ordered if torn else []):
        if len(kin[families[unit[0]]]) == 1:
            single[home[unit], kind(unit)].append(unit)
    for members in torn:
        moved, target = _side_to_move(members, home)
        for unit in moved:
            partners = single[target, kind(unit)]
            if not partners:
                return None
            partner = partners.pop()
            home[unit], home[partner] = target, home[unit]
    return {name: [list(unit) for unit in ordered if home[unit] == name] for name in parts}


def _side_to_move(members: Sequence[_Unit], home: Mapping[_Unit, str]) -> tuple[list[_Unit], str]:
    """The units of a torn family that leave their part, and the part that they go to."""
    held = [unit for unit in members if home[unit] in _HELD]
    trained = [unit for unit in members if home[unit] not in _HELD]
    if sum(map(len, held)) < sum(map(len, trained)):
        return held, home[trained[0]]
    return trained, min((home[unit] for unit in held), key=_HELD.index)
