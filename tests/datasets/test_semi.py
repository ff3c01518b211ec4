"""Mixed batches: composition, coverage, disjoint ranks, and continuation after a resume."""

import numpy as np
import pytest

from dfssd.datasets.semi import MixedSampler, batch_composition, whole_image_tiles


def sampler(**changes) -> MixedSampler:
    settings = {"labeled_per_batch": 3, "unlabeled_per_batch": 5, "batches": 7, "seed": 4}
    return MixedSampler(20, 50, **{**settings, **changes})


def test_every_batch_has_the_composition_and_labelled_first() -> None:
    indices = np.array(list(sampler())).reshape(7, 8)
    assert (indices[:, :3] < 20).all()
    assert (indices[:, 3:] >= 20).all() and indices.max() < 70


def test_each_image_is_seen_equally_often() -> None:
    s = sampler()
    seen = np.bincount([i for _ in range(20) for i in s], minlength=70)  # 420 labelled and 700 unlabelled draws
    assert (seen[:20] == 21).all()
    assert (seen[20:] == 14).all()


def test_epochs_differ_and_a_resumed_run_continues_the_streams() -> None:
    whole = sampler()
    epochs = [list(whole) for _ in range(4)]
    assert epochs[0] != epochs[1]
    resumed = sampler()
    resumed.epoch = 2
    assert [list(resumed), list(resumed)] == epochs[2:]


def test_set_epoch_does_not_disturb_the_streams() -> None:
    plain, told = sampler(), sampler()
    first = list(told)
    told.set_epoch(0)
    assert [first, list(told)] == [list(plain), list(plain)]


def test_ranks_take_disjoint_slices_that_make_up_the_global_batch() -> None:
    alone = np.array(list(sampler(labeled_per_batch=4, unlabeled_per_batch=4))).reshape(7, 8)
    ranks = [
        np.array(list(sampler(labeled_per_batch=2, unlabeled_per_batch=2, rank=r, world=2))).reshape(7, 4)
        for r in range(2)
    ]
    for batch, a, b in zip(alone, *ranks):
        assert sorted(batch) == sorted([*a, *b])


def test_labelled_only_batches_and_sets_smaller_than_a_batch() -> None:
    only = MixedSampler(2, 0, labeled_per_batch=4, unlabeled_per_batch=0, batches=3, seed=0)
    indices = list(only)
    assert len(indices) == len(only) == 12
    assert np.bincount(indices).tolist() == [6, 6]


@pytest.mark.parametrize(
    ("batch", "share", "expected"),
    [(16, 0.5, (8, 8)), (16, 0.75, (4, 12)), (16, 0.0, (16, 0)), (2, 0.99, (1, 1)), (16, 0.001, (15, 1))],
)
def test_batch_composition(batch: int, share: float, expected: tuple[int, int]) -> None:
    assert batch_composition(batch, share) == expected


def test_tiles_cover_the_image_once() -> None:
    tiles = whole_image_tiles(4)
    assert tiles.shape == (16, 4)
    assert np.isclose((tiles[:, 2] * tiles[:, 3]).sum(), 1)
    low, high = tiles[:, :2] - tiles[:, 2:] / 2, tiles[:, :2] + tiles[:, 2:] / 2
    assert low.min() == 0 and high.max() == 1
    point = np.array([0.3, 0.8])
    assert ((low < point) & (point < high)).all(1).sum() == 1
