from __future__ import annotations

import pytest

from dfssd.evaluation.significance import CHANCE, noise_of


@pytest.mark.parametrize(
    ("instances", "noise"), [(100, 0.05), (1_000, 0.0158), (2_500, 0.01), (1_000_000, 0.01), (0, 0.01), (None, 0.01)]
)
def test_few_defects_make_differences_chance(instances, noise):
    assert noise_of(instances) == pytest.approx(noise, abs=5e-5)
    assert noise_of(instances) >= CHANCE
