"""Choosing a few images out of many, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dfssd.datasets.records import LabeledImage

ItemT = TypeVar("ItemT", bound=LabeledImage)


def evenly(count: int, most: int | None) -> list[int]:
    """Numbers below ``count``, all or at most ``most``, evenly spaced."""
    taken = count if most is None else min(count, most)
    return [i * count // taken for i in range(taken)]


def evenly_by_class(items: Sequence[ItemT], most: int) -> list[ItemT]:
    """At most ``most`` images, evenly from the list, as many for each class as that fills most of them."""
    by_class: dict[int, list[ItemT]] = {}
    for item in items:
        if item.classes:
            by_class.setdefault(item.classes.most_common(1)[0][0], []).append(item)
    chosen: list[ItemT] = []
    for i, (_, found) in enumerate(sorted(by_class.items())):
        chosen += [found[k] for k in evenly(len(found), (most - len(chosen)) // (len(by_class) - i))]
    return chosen
