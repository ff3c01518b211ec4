"""Distance maps computed once are those of every view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dfssd.datasets.records import IGNORE
from dfssd.segmentation.boundary import distance_maps
from dfssd.segmentation.stored_maps import StoredMaps, store_maps
from dfssd.segmentation.symmetries import POSES, offsets, pixel_numbers, read_squares
from tests.segmentation.test_boundary import blobs

SIDE, NC = 20, 4


def masks() -> list[np.ndarray]:
    """Of several sizes; one without defects, one all of one class, one with ignored pixels."""
    plain = [blobs(k, ids, size) for k, (ids, size) in enumerate([([1, 2, 3], (20, 13)), ([2], (9, 20)), ([], (5, 5))])]
    return [*plain, np.full((6, 6), 3, np.uint8), blobs(7, [1, 1, 3, IGNORE], (20, 20))]


def build(given: list[np.ndarray], at_once: int = 2) -> tuple[StoredMaps, list[int]]:
    asked: list[int] = []

    def room(maps: int) -> Tensor:
        asked.append(maps)
        return torch.full((maps, (SIDE + 2) ** 2), torch.nan)

    return store_maps(given.__getitem__, len(given), nc=NC, side=SIDE, room=room, at_once=at_once), asked


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_maps_of_every_view_are_those_of_the_turned_and_padded_mask(at_once: int) -> None:
    given = masks()
    stored, _ = build(given, at_once)
    sizes = np.array([mask.shape for mask in given])
    for pose in range(POSES):
        rows, columns = (torch.from_numpy(x) for x in offsets(sizes, np.full(len(given), pose), SIDE))
        first = torch.from_numpy(stored.firsts(np.arange(len(given))))
        numbers = pixel_numbers(rows, columns)[:, None] + first[:, :, None, None]
        found = read_squares(stored.values, numbers).numpy()
        for mask, maps in zip(given, found, strict=True):
            square = np.full((SIDE, SIDE), IGNORE, np.uint8)
            top, left = (SIDE - mask.shape[0]) // 2, (SIDE - mask.shape[1]) // 2
            square[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
            square = square[:, ::-1] if pose & 1 else square
            square = square[::-1] if pose & 2 else square
            square = square.T if pose & 4 else square
            np.testing.assert_allclose(maps, distance_maps(np.ascontiguousarray(square), NC), atol=2e-5)


def test_only_classes_that_a_mask_holds_take_memory() -> None:
    given = masks()
    stored, asked = build(given)
    held = sum(len(set(np.unique(mask)) - {0, IGNORE}) for mask in given)
    assert asked == [held + 1] and stored.values.shape[0] == held + 1
    assert stored.rows[2].tolist() == [0, 0, 0] and not stored.values[0].any()
    assert not stored.values.isnan().any()
    assert sorted(stored.rows[stored.rows > 0]) == list(range(1, held + 1))


def test_no_defect_anywhere() -> None:
    stored, asked = build([np.zeros((4, 4), np.uint8)] * 3)
    assert asked == [1] and not stored.rows.any() and not stored.values.any()
