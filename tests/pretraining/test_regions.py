"""What stands out from its surroundings, in drawn images whose regions are known."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.pretraining.regions import MOST, SIDE, salient_regions


def surface(seed: int = 0, side: int = 2 * SIDE, noise: float = 3.0, ramp: float = 60.0) -> np.ndarray:
    """An uneven light on a grained surface; (side, side) float."""
    light = 90 + ramp * np.linspace(0, 1, side)[None] + 0 * np.linspace(0, 1, side)[:, None]
    return light + np.random.default_rng(seed).normal(0, noise, (side, side))


def drawn(image: np.ndarray, *boxes: tuple[int, int, int, int], change: float = -60.0) -> np.ndarray:
    """The image as uint8, with rectangles (left, top, right, bottom) [px] that are darker."""
    image = image.copy()
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] += change
    return image.clip(0, 255).astype(np.uint8)


def corners(found: np.ndarray, side: int) -> np.ndarray:
    """Boxes (k, 4) as left, top, right, bottom [px]."""
    return np.concatenate([found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2], 1) * side


def test_defects_are_found_where_they_are_the_largest_first() -> None:
    true = (250, 60, 330, 110), (40, 300, 60, 360)
    found = salient_regions(drawn(surface(), *true))
    assert found.shape == (2, 4) and found.dtype == np.float32
    assert np.abs(corners(found, 2 * SIDE) - np.array(true)).max() <= 4


def test_brighter_and_rougher_places_stand_out_as_well() -> None:
    bright = salient_regions(drawn(surface(), (100, 100, 140, 180), change=60))
    assert np.abs(corners(bright, 2 * SIDE) - [[100, 100, 140, 180]]).max() <= 4
    rough = surface()
    rough[200:280, 200:300] += np.random.default_rng(1).normal(0, 30, (80, 100))
    assert np.abs(corners(salient_regions(drawn(rough)), 2 * SIDE) - [[200, 200, 300, 280]]).max() <= 12


@pytest.mark.parametrize("noise", [0.0, 1.0, 8.0])
def test_an_undamaged_surface_has_none_however_it_is_lit(noise: float) -> None:
    assert salient_regions(drawn(surface(noise=noise))).shape == (0, 4)


def test_what_is_lost_in_the_grain_is_not_found() -> None:
    box = (100, 100, 140, 180)
    assert len(salient_regions(drawn(surface(noise=3), box, change=-20))) == 1
    assert len(salient_regions(drawn(surface(noise=40, ramp=0), box, change=-20))) == 0


def test_boxes_do_not_depend_on_the_size_of_the_image() -> None:
    large = drawn(surface(side=800), (500, 120, 660, 220))
    small = large.reshape(200, 4, 200, 4).mean((1, 3)).astype(np.uint8)
    assert np.abs(salient_regions(large) - salient_regions(small)).max() < 0.01


def test_wide_images_and_no_more_than_the_largest() -> None:
    wide = drawn(surface()[:200], (250, 60, 330, 110))
    [box] = salient_regions(wide) * np.array([400, 200, 400, 200])
    assert np.abs(box[:2] - [290, 85]).max() <= 2 and np.abs(box[2:] - [80, 50]).max() <= 8
    many = [(40 * i + 10, 40 * j + 10, 40 * i + 22, 40 * j + 22) for i in range(10) for j in range(10)]
    assert len(salient_regions(drawn(surface(ramp=0), *many))) <= MOST
