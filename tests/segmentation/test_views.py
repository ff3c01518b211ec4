"""Views move everything that belongs to an image alike."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dfssd.datasets.copies.grain import poses
from dfssd.segmentation.views import pad_to_square
from tests.configured import views as build_views
from tests.segmentation.material import defects


def test_all_eight_poses_come_and_masks_move_alike() -> None:
    image, mask = defects(3)
    image[..., 0] = mask * 50
    number = np.arange(64 * 64, dtype=np.int64).reshape(64, 64)
    views, seen = build_views(jitter=0), set()
    random.seed(0)
    for _ in range(60):
        moved, (ids, low) = views(image, [mask, (number % 251).astype(np.uint8)])
        assert np.array_equal(moved[..., 0], ids * 50)
        pose = next(k for k, p in enumerate(poses(number)) if np.array_equal((p % 251).astype(np.uint8), low))
        seen.add(pose)
    assert seen == set(range(8))


def test_colors_change_in_a_fifth_of_the_views_and_move_nothing() -> None:
    image, mask = defects(4)
    before = image.copy()
    views = build_views(symmetries=False)
    random.seed(0)
    changed = 0
    for _ in range(200):
        seen, (ids,) = views(image, [mask])
        changed += not np.array_equal(seen, before)
        assert np.array_equal(ids, mask) and seen.dtype == np.uint8
    assert 22 <= changed <= 60
    assert np.array_equal(image, before)


def test_the_seed_of_the_process_decides() -> None:
    image, mask = defects(5)
    random.seed(7)
    first = [build_views()(image, [mask])[0] for _ in range(5)]
    random.seed(7)
    assert all(np.array_equal(a, build_views()(image, [mask])[0]) for a in first)


def test_padding_is_ignored_and_not_real() -> None:
    image, mask = defects(6)
    padded, ids, real = pad_to_square(image[:40], mask[:40], 64)
    assert padded.shape == (64, 64, 3) and np.array_equal(padded[12:52], image[:40])
    assert (ids[:12] == 255).all() and np.array_equal(ids[12:52], mask[:40])
    assert real.sum() == 40 * 64 and real[12:52].all()


def test_jitter_is_a_probability() -> None:
    with pytest.raises(ValueError, match="jitter"):
        build_views(jitter=1.5)
