"""Which test images the report of a mask network shows: the worst ones first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dfssd.datasets.samples import evenly
from dfssd.segmentation.metrics import PixelCounts

MISSED, FALSE, OTHERS = 3, 3, 2
"""Images where most is missed, where most is marked in excess, and others."""


def choose_pictures(counts: PixelCounts) -> dict[int, str]:
    """Images where the network misses the largest share of the area, where it marks most in excess, and some others.

    Args:
        counts: Its pixels on the test images.

    Returns:
        Number of the image -> what is to be seen, in a few words; each image once.
    """
    area = np.maximum(1, counts.true.sum(1))
    missed = (counts.true - counts.hits)[:, 1:].sum(1) / area
    excess = (counts.found - counts.hits)[:, 1:].sum(1) / area
    chosen: dict[int, str] = {}
    for shares, said, most in ((missed, "missed", MISSED), (excess, "in excess", FALSE)):
        worst = [
            image for image in np.argsort(-shares, kind="stable").tolist() if shares[image] and image not in chosen
        ]
        chosen |= {image: f"{said}: {shares[image]:.1%} of the image" for image in worst[:most]}
    rest = [image for image in range(len(counts.images)) if image not in chosen]
    return chosen | dict(_others(rest, missed + excess))


def _others(images: list[int], wrong: np.ndarray) -> Iterator[tuple[int, str]]:
    """Some of the images, spread evenly from the best to the worst."""
    ranked = sorted(images, key=lambda image: wrong[image])
    for place in evenly(len(ranked), OTHERS):
        yield ranked[place], f"wrong: {wrong[ranked[place]]:.1%} of the image"
