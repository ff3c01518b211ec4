"""Blurs of a batch against OpenCV and albumentations."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from albumentations.augmentations.blur.functional import create_gaussian_kernel_1d, create_motion_kernel
from albumentations.augmentations.pixel.functional import separable_convolve

from dfssd.loading.filters import box_kernel, convolve, gaussian_kernel, median, motion_kernel, same_size
from tests.loading.pictures import arrays, batch, difference, grays, noise, smooth

IMAGES = [noise(40, 51), smooth(40, 51), grays(40, 51), np.full((40, 51, 3), 255, np.uint8)]


@pytest.mark.parametrize("size", [3, 5, 7])
def test_median(size: int) -> None:
    found = arrays(median(batch(*IMAGES), size))
    assert np.array_equal(found, np.stack([cv2.medianBlur(image, size) for image in IMAGES]))
    assert not np.array_equal(
        found, np.stack([cv2.medianBlur(image, 10 - size if size != 5 else 3) for image in IMAGES])
    )


def test_median_of_a_large_window() -> None:
    """More pixels than a byte counts."""
    assert np.array_equal(arrays(median(batch(IMAGES[1]), 17))[0], cv2.medianBlur(IMAGES[1], 17))


@pytest.mark.parametrize("size", [3, 5, 7])
def test_box(size: int) -> None:
    found = arrays(convolve(batch(*IMAGES), torch.from_numpy(np.stack([box_kernel(size)] * 4))))
    assert difference(found, np.stack([cv2.blur(image, (size, size)) for image in IMAGES])) <= 1


@pytest.mark.parametrize(("sigma", "size"), [(0.5, 3), (1.1, 3), (0.8, 5), (3.0, 5)])
def test_gaussian(sigma: float, size: int) -> None:
    expected = [separable_convolve(image, create_gaussian_kernel_1d(sigma, size)) for image in IMAGES]
    found = arrays(convolve(batch(*IMAGES), torch.from_numpy(np.stack([gaussian_kernel(sigma, size)] * 4))))
    assert difference(found, np.stack(expected)) <= 1
    assert difference(found, np.stack(IMAGES)) > 10


def test_motion_kernels_are_those_of_albumentations() -> None:
    rng = np.random.default_rng(0)
    for seed in range(300):
        size, angle, direction = int(rng.choice([3, 5, 7])), rng.uniform(0, 360), rng.uniform(-1, 1)
        expected = create_motion_kernel(size, angle, direction, True, random.Random(seed))
        source = random.Random(seed)
        found = motion_kernel(size, angle, direction, (source.uniform(-1, 1), source.uniform(-1, 1)))
        assert np.allclose(found, expected / expected.sum())
    assert motion_kernel(5, 0, 1, (0, 0)).tolist()[2] == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_each_image_has_its_kernel() -> None:
    """Kernels are applied as in ``cv2.filter2D``: not mirrored, and the border is."""
    kernels = [motion_kernel(3, 0, 1, (1, 1)), gaussian_kernel(1, 5), motion_kernel(7, 30, -0.5, (0.5, -1)), np.eye(1)]
    padded = same_size([k.astype(np.float32) for k in kernels])
    assert padded.shape == (4, 7, 7)
    found = arrays(convolve(batch(*IMAGES), torch.from_numpy(padded)))
    expected = np.stack([cv2.filter2D(image, -1, kernel) for image, kernel in zip(IMAGES, kernels, strict=True)])
    assert difference(found, expected) <= 1
    assert np.array_equal(found[3], IMAGES[3])
    turned = torch.from_numpy(padded[:, ::-1, ::-1].copy())
    assert difference(arrays(convolve(batch(*IMAGES), turned)), expected) > 10
