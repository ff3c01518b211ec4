"""Selection of a few images to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dfssd.datasets.records import LabeledImage

ItemT = TypeVar("ItemT", bound=LabeledImage)


def evenly(count: int, most: int | None) -> list[int]:
    """At most ``most`` evenly spaced indices below ``count``; None: all."""
    taken = count if most is None else min(count, most)
    return [i * count // taken for i in range(taken)]


def evenly_by_class(items: Sequence[ItemT], most: int) -> list[ItemT]:
    """At most ``most`` images, as many of each class; an image counts for its most frequent class."""
    by_class: dict[int, list[ItemT]] = {}
    for item in items:
        if item.classes:
            by_class.setdefault(item.classes.most_common(1)[0][0], []).append(item)
    chosen: list[ItemT] = []
    for i, (_, found) in enumerate(sorted(by_class.items())):
        chosen += [found[k] for k in evenly(len(found), (most - len(chosen)) // (len(by_class) - i))]
    return chosen
