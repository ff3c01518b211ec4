"""Paired intervals over the test images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfssd.evaluation.bootstrap import intervals
from dfssd.evaluation.detections import Detections
from dfssd.segmentation.metrics import PixelCounts
from tests.evaluation.test_detections import random_detections, reference


def interval(a: Detections, b: Detections, score: str = "map50_95", **options) -> tuple[float, float]:
    [found] = intervals({"a": a, "b": b}, [("a", "b")], **options).values()
    return found[score]


def test_identical_detectors_differ_by_nothing():
    found = random_detections()
    assert interval(found, found, rounds=50) == interval(found, found, "map50", rounds=50) == (0.0, 0.0)


def test_a_known_gain_is_seen_and_has_the_sign_of_a_minus_b():
    bad = random_detections(skill=1.0)
    good = replace(bad, tp=bad.tp | (bad.conf > 0.9)[:, None])
    for score in ("map50_95", "map50"):
        low, high = interval(good, bad, score, rounds=200)
        assert 0 < low < reference(good)[score] - reference(bad)[score] < high
        assert interval(bad, good, score, rounds=200) == pytest.approx((-high, -low))


def test_ends_are_quantiles_of_the_differences_on_the_same_draws():
    a, b = random_detections(skill=2.0), random_detections(skill=1.0)
    draws = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), size=60)
    differences = [reference(a, draw)["map50"] - reference(b, draw)["map50"] for draw in draws]
    expected = np.quantile(differences, [0.05, 0.95])
    assert interval(a, b, "map50", rounds=60, seed=3, level=0.9) == pytest.approx(tuple(expected), abs=1e-12)


def test_interval_is_repeatable_and_grows_with_its_level():
    a, b = random_detections(skill=2.0), replace(random_detections(skill=2.0), conf=random_detections(5).conf)
    narrow, wide = (interval(a, b, rounds=200, level=level) for level in (0.5, 0.95))
    assert narrow == interval(a, b, rounds=200, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert interval(a, b, rounds=200, seed=1) != wide


def test_networks_of_several_pairs_are_measured_once():
    calls = []

    class Counted(Detections):
        def scores(self, draws=None):
            calls.append(self)
            return super().scores(draws)

    measured = {name: Counted(**vars(random_detections(skill=skill))) for name, skill in (("a", 1), ("b", 2), ("c", 3))}
    found = intervals(measured, [("a", "b"), ("c", "b"), ("c", "a")], rounds=10)
    assert list(found) == [("a", "b"), ("c", "b"), ("c", "a")] and len(calls) == 3


def test_score_that_nothing_can_measure_is_left_out():
    found = random_detections()
    empty = replace(found, target_cls=found.target_cls[:0], target_image=found.target_image[:0])
    assert intervals({"a": empty, "b": empty}, [("a", "b")], rounds=5) == {("a", "b"): {}}


def test_other_images_and_another_truth_are_rejected():
    a = random_detections()
    pixels = PixelCounts(np.ones((40, 2), int), np.ones((40, 2), int), np.ones((40, 2), int), a.images)
    for b in (replace(a, images=("x.png", *a.images[1:])), replace(a, target_cls=a.target_cls[::-1] + 1), pixels):
        with pytest.raises(ValueError, match="a and b were not measured on the same images"):
            intervals({"a": a, "b": b}, [("a", "b")], rounds=5)
