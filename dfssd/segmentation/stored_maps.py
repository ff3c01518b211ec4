"""Distance maps of a training's masks, computed once.

Under the symmetries of the square a distance map moves with the pixels of its mask, and padding moves no border: the
map of the mask as stored holds for all of its views, up to the rounding of OpenCV's square roots (2e-5 px). Only the
classes that a mask holds have a map; all others share one of zeros.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfssd.segmentation.boundary import distance_maps

BYTES = 4
"""Of a value."""


@dataclass(frozen=True)
class StoredMaps:
    """Distance maps on the device.

    Attributes:
        values: (k + 1, (S + 2)^2) float32; the first one is 0 everywhere.
        rows: Which of them belongs to each class of each mask, (n, nc - 1) int64; 0 where it has none.
    """

    values: Tensor
    rows: np.ndarray

    def firsts(self, numbers: np.ndarray) -> np.ndarray:
        """Number of the first value of each map of the masks ``numbers`` (B,): (B, nc - 1) int64."""
        return self.rows[numbers] * self.values.shape[1]


def store_maps(
    masks: Callable[[int], np.ndarray],
    count: int,
    *,
    nc: int,
    side: int,
    room: Callable[[int], Tensor],
    at_once: int = 128,
) -> StoredMaps:
    """Compute the distance maps of masks.

    Args:
        masks: Number of a mask -> its class ids, (h, w) uint8, no side longer than ``side``; called from several
            threads.
        count: Number of masks, n.
        nc: Classes with the background.
        side: S [px].
        room: Number of maps -> memory for them, (maps, (S + 2)^2) float32 on the device.
        at_once: Masks that are computed before their maps are copied to their place.
    """
    present = np.zeros((count, nc - 1), bool)
    with ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 1)) as pool:
        for number, found in enumerate(pool.map(lambda n: _with_border(masks(n), nc), range(count))):
            present[number] = found
        rows = np.where(present, present.ravel().cumsum().reshape(present.shape), 0).astype(np.int64)
        values = room(int(rows.max(initial=0)) + 1)
        values[0] = 0.0
        last = 0
        for some in np.array_split(np.arange(count), max(1, count // at_once)):
            maps = list(pool.map(lambda n: _framed(distance_maps(masks(n), nc)[present[n]], side), some))
            block = np.concatenate([np.zeros((0, (side + 2) ** 2), np.float32), *maps])
            values[last + 1 : last + 1 + len(block)] = torch.from_numpy(block).to(values.device)
            last += len(block)
    return StoredMaps(values, rows)


def _with_border(mask: np.ndarray, nc: int) -> np.ndarray:
    """Which defect classes are in a mask, (nc - 1,) bool."""
    return np.bincount(mask.ravel(), minlength=256)[1:nc] > 0


def _framed(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (k, h, w) in the squares of the store, (k, (S + 2)^2)."""
    squares = np.zeros((len(maps), side + 2, side + 2), np.float32)
    squares[:, 1 : maps.shape[1] + 1, 1 : maps.shape[2] + 1] = maps
    return squares.reshape(len(maps), (side + 2) ** 2)


def bytes_of_maps(maps: int, side: int) -> int:
    """Bytes of so many maps."""
    return maps * (side + 2) ** 2 * BYTES
