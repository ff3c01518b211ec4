"""Distance maps against a loop over all pairs of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.datasets.records import IGNORE
from dfssd.segmentation.boundary import distance_maps


def slow_maps(mask: np.ndarray, nc: int) -> np.ndarray:
    """Signed distances by looking at every other pixel."""
    pixels = list(np.ndindex(mask.shape))
    maps = np.zeros((nc - 1, *mask.shape))
    for c in range(1, nc):
        inside = [p for p in pixels if mask[p] == c]
        outside = [p for p in pixels if mask[p] not in (c, IGNORE)]
        if not inside or not outside:
            continue
        for p in pixels:
            if mask[p] == c:
                maps[c - 1][p] = 1 - min(np.hypot(p[0] - q[0], p[1] - q[1]) for q in outside)
            elif mask[p] != IGNORE:
                maps[c - 1][p] = min(np.hypot(p[0] - q[0], p[1] - q[1]) for q in inside)
    return maps


def blobs(seed: int, ids: list[int], size: tuple[int, int] = (12, 17)) -> np.ndarray:
    """Rectangles of the given ids, one on the other, on background."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for k in ids:
        y, x = rng.integers(0, size[0] - 3), rng.integers(0, size[1] - 3)
        mask[y : y + rng.integers(1, 7), x : x + rng.integers(1, 7)] = k
    return mask


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("ids", "nc"), [([1, 2, 3], 4), ([1, 2, 3, IGNORE], 4), ([2, IGNORE], 4), ([1], 2), ([], 3)])
def test_maps_are_those_of_a_loop_over_all_pixels(seed: int, ids: list[int], nc: int) -> None:
    mask = blobs(seed, ids)
    maps = distance_maps(mask, nc)
    assert maps.dtype == np.float32 and maps.shape == (nc - 1, *mask.shape)
    np.testing.assert_allclose(maps, slow_maps(mask, nc), atol=1e-5)


def test_distances_are_the_same_bits_wherever_the_mask_lies_in_memory() -> None:
    """Roots of whole numbers, rounded once."""
    mask = blobs(5, [1, 2], (64, 64))
    found = []
    for offset in range(64):
        moved = np.empty(mask.size + offset, np.uint8)[offset:].reshape(mask.shape)
        moved[:] = mask
        found.append(distance_maps(moved, 3))
    assert all(np.array_equal(maps, found[0]) for maps in found)
    squares = np.square(np.where(found[0] > 0, found[0], 1 - found[0]), dtype=np.float64)
    assert np.array_equal(np.sqrt(np.rint(squares)).astype(np.float32)[found[0] > 0], found[0][found[0] > 0])


def test_signs_and_border_by_hand() -> None:
    mask = np.zeros((9, 9), np.int64)
    mask[2:7, 2:7] = 2
    square, absent = distance_maps(mask, 4)[1], distance_maps(mask, 4)[[0, 2]]
    assert not absent.any()
    inside = mask == 2
    assert (square[~inside] >= 1).all() and (square[inside] <= 0).all()
    assert square[2, 2:7].tolist() == [0] * 5 and square[4].tolist() == [2, 1, 0, -1, -2, -1, 0, 1, 2]
    assert square[0, 0] == pytest.approx(8**0.5), "distances are not whole numbers"


def test_class_without_a_border_has_no_distances() -> None:
    mask = np.full((6, 6), 1, np.uint8)
    assert not distance_maps(mask, 3).any()
    mask[:2] = IGNORE
    assert not distance_maps(mask, 3).any(), "an ignored pixel is not outside"


def test_padding_with_ignored_pixels_moves_no_border() -> None:
    mask = blobs(3, [1, 2, 3, 1])
    padded = distance_maps(np.pad(mask, 4, constant_values=IGNORE), 4)
    np.testing.assert_allclose(padded[:, 4:-4, 4:-4], distance_maps(mask, 4), atol=1e-6)
    padded[:, 4:-4, 4:-4] = 0
    assert not padded.any()


def test_turned_masks_have_turned_maps() -> None:
    mask = blobs(1, [1, 2, 3, IGNORE])
    for turned, maps in (
        (np.rot90(mask), np.rot90(distance_maps(mask, 4), axes=(1, 2))),
        (mask[::-1], distance_maps(mask, 4)[:, ::-1]),
    ):
        np.testing.assert_allclose(distance_maps(turned, 4), maps, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"not \(4, 4, 3\) of uint8"),
        (np.zeros((4, 4), np.float32), r"not \(4, 4\) of float32"),
        (np.array([[0, 3], [7, 1]]), r"holds ids \[3, 7\], but only 0 to 2 and 255"),
        (np.array([[0, -1]]), r"holds ids \[-1\]"),
    ],
)
def test_wrong_masks_are_rejected(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        distance_maps(mask, 3)
    assert "\n" not in str(caught.value)
