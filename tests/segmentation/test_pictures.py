"""Which test images a report of masks shows."""

from __future__ import annotations

import numpy as np

from dfssd.segmentation.metrics import PixelCounts
from dfssd.segmentation.pictures import FALSE, MISSED, OTHERS, choose_pictures


def counts(missed: list[int], excess: list[int], area: list[int] | None = None) -> PixelCounts:
    """Images of ``area`` pixels (100) with 20 of a defect, of which some are missed; others are marked in excess."""
    sizes, lost, more = (np.array(x) for x in (area or [100] * len(missed), missed, excess))
    hits = np.stack([sizes - 20 - more, 20 - lost], 1)
    true = np.stack([sizes - 20, np.full(len(sizes), 20)], 1)
    found = np.stack([sizes - 20 - more + lost, 20 - lost + more], 1)
    return PixelCounts(hits, true, found, tuple(f"{i}.png" for i in range(len(sizes))))


def test_images_with_most_missed_come_first_then_those_with_most_in_excess() -> None:
    missed, excess = [0] * 20, [0] * 20
    missed[4], missed[7], missed[2], missed[9] = 5, 20, 1, 2
    excess[7], excess[11], excess[4] = 30, 9, 8
    shown = choose_pictures(counts(missed, excess))
    assert list(shown)[:4] == [7, 4, 9, 11] and len(shown) == 4 + OTHERS
    assert shown[7] == "missed: 20.0% of the image" and shown[11] == "in excess: 9.0% of the image"


def test_shares_count_not_pixels() -> None:
    """Ten pixels of a small image are more than twenty of a large one."""
    shown = choose_pictures(counts([20, 10], [0, 0], area=[10_000, 50]))
    assert list(shown) == [1, 0]


def test_each_image_once_and_no_more_than_wanted() -> None:
    shown = choose_pictures(counts(list(range(20)), list(range(20))))
    assert len(shown) == MISSED + FALSE + OTHERS and len(set(shown)) == len(shown)


def test_network_without_a_mistake_still_has_pictures() -> None:
    shown = choose_pictures(counts([0] * 5, [0] * 5))
    assert len(shown) == OTHERS and set(shown.values()) == {"wrong: 0.0% of the image"}


def test_single_image() -> None:
    assert choose_pictures(counts([3], [2])) == {0: "missed: 3.0% of the image"}
