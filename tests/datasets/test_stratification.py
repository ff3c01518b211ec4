import numpy as np
import pytest

from dfssd.datasets.stratification import stratify


@pytest.mark.parametrize("seed", range(3))
def test_sizes_are_exact_and_shares_within_one(seed):
    rng = np.random.default_rng(seed)
    table = (rng.random((400, 6)) < [0.6, 0.3, 0.2, 0.1, 0.05, 0.02]).astype(float)
    home = stratify(table, np.ones(400, int), [320, 40, 40], rng)
    assert np.bincount(home).tolist() == [320, 40, 40]
    found = np.stack([table[home == part].sum(0) for part in range(3)])
    wanted = np.outer([0.8, 0.1, 0.1], table.sum(0))
    assert np.abs(found - wanted).max() <= 1.5


def test_a_hand_worked_case():
    """Two of each feature, two equal parts: one of each in either."""
    table = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], float)
    home = stratify(table, np.ones(4, int), [2, 2], np.random.default_rng(0))
    assert sorted(home[:2]) == sorted(home[2:]) == [0, 1]


def test_every_feature_reaches_a_small_first_part():
    table = np.repeat(np.eye(5), [50, 50, 50, 3, 1], axis=0)
    for seed in range(5):
        home = stratify(table, np.ones(154, int), [5, 149], np.random.default_rng(seed), every_feature=True)
        assert (table[home == 0].sum(0) == 1).all()


def test_heavy_units_are_never_torn_and_a_full_part_takes_no_more():
    weight = np.array([4, 3, 1, 1, 1])
    home = stratify(np.ones((5, 1)) * weight[:, None], weight, [8, 2], np.random.default_rng(0))
    assert [weight[home == part].sum() for part in range(2)] == [8, 2]


def test_a_part_of_size_zero_stays_empty():
    home = stratify(np.ones((10, 1)), np.ones(10, int), [10, 0], np.random.default_rng(0))
    assert (home == 0).all()
