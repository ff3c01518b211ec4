"""CLAHE of a batch against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from albumentations.augmentations.pixel.functional import clahe

from dfssd.loading.contrast import count_limits, equalize, equalize_levels, tile_shape
from tests.loading.pictures import arrays, batch, difference, grays, noise, smooth

SHAPES = [(64, 64), (50, 61), (64, 75), (75, 64), (416, 416)]
"""Both sides are multiples of 8, none, only the height, only the width."""


def limits_of(clips: list[float], shape: tuple[int, int], grid: tuple[int, int] = (8, 8)) -> torch.Tensor:
    return torch.from_numpy(count_limits(np.array(clips), tile_shape(*shape, grid)))


@pytest.mark.parametrize("shape", SHAPES)
def test_as_albumentations(shape: tuple[int, int]) -> None:
    clips = [1.0, 1.7, 4.0, 2.5]
    images = [noise(*shape), smooth(*shape), smooth(*shape, 1), grays(*shape) // 8 + 100]
    found = arrays(equalize(batch(*images), limits_of(clips, shape)))
    expected = np.stack([clahe(image, clip, (8, 8)) for image, clip in zip(images, clips, strict=True)])
    assert difference(found, expected) <= 1
    assert np.mean(found != expected) < 1e-3


def test_the_limit_of_each_image_counts() -> None:
    images = [smooth(160, 160), smooth(160, 160)]
    found = arrays(equalize(batch(*images), limits_of([1.2, 4.0], (160, 160))))
    assert difference(found[0], found[1]) > 5
    assert difference(found[1], images[1]) > 5


@pytest.mark.parametrize("grid", [(8, 8), (2, 5), (1, 1)])
def test_gray_levels_with_other_grids(grid: tuple[int, int]) -> None:
    image = smooth(50, 60)[..., 0]
    found = equalize_levels(
        torch.from_numpy(image.astype(np.int32))[None, None], limits_of([2.0], (50, 60), grid), grid
    )
    expected = cv2.createCLAHE(2.0, grid[::-1]).apply(image)
    assert difference(found[0, 0].numpy(), expected) <= 1


def test_tiles() -> None:
    assert tile_shape(64, 80, (8, 8)) == (8, 10)
    assert tile_shape(65, 80, (8, 8)) == (9, 11), "72 rows, and 88 columns though 80 fit"
    assert count_limits(np.array([1.0, 4.0]), (8, 8)).tolist() == [1, 1]
    assert count_limits(np.array([1.0, 4.0]), (40, 64)).tolist() == [10, 40]
