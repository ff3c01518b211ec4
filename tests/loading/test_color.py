"""Colors of a batch against OpenCV, and HSV gains against Ultralytics."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from scipy import stats
from ultralytics.data.augment import RandomHSV

from dfssd.benchmark.operators import count_operators
from dfssd.loading.color import gray, hsv, lab_to_rgb, rgb_to_hsv, rgb_to_lab, sample_gains
from tests.loading.pictures import arrays, batch, difference, grays, noise, smooth

LIMITS = (0.015, 0.7, 0.4)


def all_colors(step: int) -> np.ndarray:
    levels = np.append(np.arange(0, 255, step), 255).astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)


def by_ultralytics(image: np.ndarray, limits: tuple[float, float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gains, and the RGB image that they make of an RGB image."""
    np.random.seed(seed)
    gains = np.random.uniform(-1, 1, 3) * limits
    np.random.seed(seed)
    labels = {"img": image[..., ::-1].copy()}
    RandomHSV(*limits).apply_image(labels)
    return gains, labels["img"][..., ::-1]


@pytest.mark.parametrize("limits", [LIMITS, (0.5, 0.9, 0.9)])
def test_hsv_is_that_of_ultralytics(limits: tuple[float, float, float]) -> None:
    # The last columns of a row that fill no vector of 32 pixels are rounded by OpenCV, all others cut off.
    images = [noise(40, 64, i) for i in range(6)] + [smooth(40, 64, i) for i in range(6)]
    gains, expected = zip(*(by_ultralytics(image, limits, i) for i, image in enumerate(images)), strict=True)
    found = arrays(hsv(batch(*images), np.stack(gains)))
    assert difference(found, np.stack(expected)) <= 1
    assert np.mean(found != np.stack(expected)) < 1e-3
    assert difference(found, np.stack(images)) > 20, "the gains do change the images"
    assert difference(arrays(hsv(batch(*images), np.stack(gains[::-1]))), np.stack(expected)) > 20


def test_hsv_keeps_grays_gray_and_exact() -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    gains, expected = by_ultralytics(image, LIMITS, 3)
    found = arrays(hsv(batch(image), gains[None]))[0]
    assert np.array_equal(found, expected)
    assert np.array_equal(found[..., 0], found[..., 2])
    assert not np.array_equal(found, image)
    assert np.array_equal(arrays(hsv(batch(image), np.array([[0.3, 0.5, 0]])))[0], image)


def test_hsv_without_gains_gives_a_copy() -> None:
    images = batch(noise(8, 8))
    same = hsv(images, np.zeros((1, 3)))
    assert torch.equal(same, images)
    assert same.data_ptr() != images.data_ptr()


def test_gains_are_drawn_as_by_ultralytics() -> None:
    found = sample_gains(np.random.default_rng(0), 4000, LIMITS)
    assert found.shape == (4000, 3)
    np.random.seed(1)
    expected = np.random.uniform(-1, 1, (4000, 3)) * LIMITS
    for i, limit in enumerate(LIMITS):
        assert stats.ks_2samp(found[:, i], expected[:, i]).pvalue > 1e-3
        assert 0.99 * limit < np.abs(found[:, i]).max() <= limit
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.1


def test_conversions_are_those_of_opencv() -> None:
    for image in (all_colors(6), noise(64, 64), grays(64, 64)):
        images = batch(image)
        assert np.array_equal(arrays(torch.cat(rgb_to_hsv(images), 1))[0], cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        assert np.array_equal(arrays(rgb_to_lab(images))[0], lab)
        assert np.array_equal(arrays(lab_to_rgb(batch(lab).int()))[0], cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))
        # Three channels by chance are mostly no color at all: both cut off in the same place.
        assert np.array_equal(arrays(lab_to_rgb(images.int()))[0], cv2.cvtColor(image, cv2.COLOR_LAB2RGB))
        assert np.array_equal(arrays(gray(images))[0, ..., 0], cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def test_cost_of_hsv() -> None:
    rng = np.random.default_rng(0)
    counts = []
    for n in (4, 16):
        images, gains = batch(*[noise(32, 32)] * n), sample_gains(rng, n, LIMITS)
        hsv(images, gains)
        counts.append(count_operators(partial(hsv, images, gains)))
    assert counts[0].launched == counts[1].launched <= 32
    assert counts[0].waits == counts[1].waits == 0
