"""Symmetries by numbers of pixels against turning and mirroring the padded image itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfssd.datasets.records import IGNORE
from dfssd.segmentation.symmetries import POSES, offsets, pixel_numbers, read_squares
from dfssd.segmentation.views import PADDING, pad_to_square


def posed(square: np.ndarray, pose: int) -> np.ndarray:
    """A square in a pose, by numpy's own operations."""
    square = square[:, ::-1] if pose & 1 else square
    square = square[::-1] if pose & 2 else square
    return square.swapaxes(0, 1) if pose & 4 else square


def stored(image: np.ndarray, around: int, side: int) -> np.ndarray:
    """An image (h, w) as the store holds it."""
    square = np.full((side + 2, side + 2), around, image.dtype)
    square[1 : image.shape[0] + 1, 1 : image.shape[1] + 1] = image
    return square


@pytest.mark.parametrize("size", [(8, 8), (5, 8), (8, 3), (7, 4), (1, 1)])
def test_every_pose_of_an_image_in_its_square(size: tuple[int, int]) -> None:
    side, mask = 8, np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    image = np.stack([mask, mask + 60, mask + 120], -1)
    padded, ids, _ = pad_to_square(image, mask, side)
    rows, columns = offsets(np.array([size] * POSES), np.arange(POSES), side)
    numbers = pixel_numbers(torch.from_numpy(rows), torch.from_numpy(columns))
    assert numbers.shape == (POSES, side, side)
    seen = set()
    for what, around, expected in ((mask, IGNORE, ids), (image[..., 1], PADDING, padded[..., 1])):
        square = torch.from_numpy(stored(what, around, side)).view(1, -1)
        found = read_squares(square, numbers).numpy()
        for pose in range(POSES):
            assert np.array_equal(found[pose], posed(expected, pose)), pose
        seen.add(len({view.tobytes() for view in found}))
    assert size == (1, 1) or max(seen) >= 4, "the poses of an image without a symmetry of its own differ"


def test_the_eight_poses_are_the_eight_symmetries() -> None:
    square = np.arange(9).reshape(3, 3)
    turns = [np.rot90(side, k) for side in (square, square.T) for k in range(4)]
    assert {posed(square, k).tobytes() for k in range(POSES)} == {t.tobytes() for t in turns}


def test_images_of_a_batch_are_apart() -> None:
    """Each image has a size and a pose of its own, and none sees pixels of another one."""
    rng, side = np.random.default_rng(0), 6
    sizes = rng.integers(1, side + 1, (20, 2))
    poses = rng.integers(0, POSES, 20)
    images = [rng.integers(0, 99, size) for size in sizes]
    squares = torch.from_numpy(np.stack([stored(image, -1, side) for image in images])).view(20, -1)
    rows, columns = (torch.from_numpy(x) for x in offsets(sizes, poses, side))
    numbers = pixel_numbers(rows + torch.arange(20)[:, None] * squares.shape[1], columns)
    found = read_squares(squares, numbers).numpy()
    for image, size, pose, view in zip(images, sizes, poses, found, strict=True):
        top, left = (side - size) // 2
        square = np.full((side, side), -1)
        square[top : top + size[0], left : left + size[1]] = image
        assert np.array_equal(view, posed(square, pose))
