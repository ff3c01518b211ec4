"""Thresholds for a rate of false alarms, chosen on some images, and what they do to others."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.evaluation.operating import (
    LOWEST,
    RATES,
    ImageScores,
    operating_points,
    outcome,
    selected,
    share,
    thresholds_for,
)
from dfssd.results.sections import Operating, images_for
from tests.evaluation.test_detections import random_detections


def images(good: list[float], bad: list[float]) -> ImageScores:
    """One class: scores of good and of defective images."""
    score = np.array([*good, *bad], float)[:, None]
    return ImageScores(score, np.array([*[False] * len(good), *[True] * len(bad)])[:, None])


def random_scores(seed: int = 0, n: int = 400, classes: int = 3, good: float = 0.5, skill: float = 2.0) -> ImageScores:
    random = np.random.default_rng(seed)
    true = (random.random((n, classes)) < 0.4) & (random.random(n) >= good)[:, None]
    return ImageScores(1 / (1 + np.exp(-random.normal(size=true.shape) - skill * (2 * true - 1))), true)


def test_scores_of_images_are_the_highest_of_their_boxes() -> None:
    found = random_detections(images=6, per_image=5)
    of = ImageScores.of(found, 4)
    for image in range(6):
        for class_id in range(4):
            own = (found.image == image) & (found.pred_cls == class_id)
            assert of.score[image, class_id] == pytest.approx(found.conf[own].max(initial=0))
            assert of.true[image, class_id] == ((found.target_image == image) & (found.target_cls == class_id)).any()


def test_image_without_detections_scores_nothing() -> None:
    found = random_detections(images=3, per_image=0)
    assert ImageScores.of(found, 4).score.tolist() == [[0.0] * 4] * 3


@pytest.mark.parametrize(
    ("rate", "threshold"),
    [(0.0, 0.9001), (0.09, 0.9001), (0.1, 0.8001), (0.19, 0.8001), (0.2, 0.7001), (0.3, 0.6001), (0.4, 0.5001)],
)
def test_threshold_is_the_lowest_that_keeps_the_rate(rate: float, threshold: float) -> None:
    val = images([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05], [0.95, 0.2])
    [found] = thresholds_for(val, rate)
    assert found == pytest.approx(threshold)
    assert val.called(np.array([found]))[:10].mean() <= rate
    assert val.called(np.array([found - 2e-4]))[:10].mean() > rate


def test_equal_scores_are_called_together() -> None:
    assert thresholds_for(images([0.5] * 10, []), 0.3)[0] == pytest.approx(0.5001)


def test_score_of_exactly_one_needs_a_higher_threshold() -> None:
    [found] = thresholds_for(images([1.0, 0.1], [1.0]), 0.0)
    assert found > 1.0, "no image may be called"


def test_no_threshold_is_below_the_lowest() -> None:
    assert thresholds_for(images([0.0, 0.0], [0.9]), 0.02)[0] == LOWEST
    assert thresholds_for(images([0.9, 0.8], [0.9]), 0.999)[0] == pytest.approx(0.8001)


@pytest.mark.parametrize("rate", [0.0, *RATES, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_rate_of_all_classes_together_is_kept_and_used(rate: float, seed: int) -> None:
    val = random_scores(seed)
    thresholds = thresholds_for(val, rate)
    good = ImageScores(val.score[~val.defective], val.true[~val.defective])
    allowed = int(rate * len(good.score))
    called = good.called(thresholds).sum()
    assert called <= allowed
    assert called >= allowed - 3, "three classes: no more than a step of each is left"
    for class_id in range(3):  # each class has the same share of false alarms among the images without it
        negatives = val.score[~val.true[:, class_id], class_id]
        own = (negatives >= thresholds[class_id]).mean()
        first = (val.score[~val.true[:, 0], 0] >= thresholds[0]).mean()
        assert own == pytest.approx(first, abs=1.5 / len(negatives))


def test_without_good_images_the_union_bound_keeps_the_rate() -> None:
    val, rate = random_scores(good=0.0), 0.1
    val = ImageScores(val.score[val.defective], val.true[val.defective])
    thresholds = thresholds_for(val, rate)
    wrong = ((val.score >= thresholds) & ~val.true).sum(0) / (~val.true).sum(0)
    assert (wrong <= rate / 3 + 1e-9).all() and wrong.max() > rate / 3 - 0.02
    fresh = random_scores(seed=9, n=4000)
    assert fresh.called(thresholds)[~fresh.defective].mean() < rate + 0.02


def test_class_on_every_image_has_the_lowest_threshold() -> None:
    val = ImageScores(np.array([[0.9, 0.3], [0.8, 0.2]]), np.array([[True, False], [True, False]]))
    assert thresholds_for(val, 0.0)[0] == LOWEST
    assert thresholds_for(val, 0.0)[1] == pytest.approx(0.3001)


def test_outcome_counts_images() -> None:
    found = outcome(images([0.6, 0.2, 0.5], [0.9, 0.5, 0.4, 0.1]), np.array([0.5]))
    assert (found.defective, found.found, found.good, found.false_alarms) == (4, 2, 3, 2)
    assert found.recall is not None and found.recall.value == 0.5
    assert found.false_alarm_rate is not None and found.false_alarm_rate.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 100, 0.0003, 0.0545)],
)
def test_interval_of_a_share(count: int, of: int, low: float, high: float) -> None:
    found = share(count, of)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_share_of_nothing_is_not_known() -> None:
    assert share(0, 0) is None
    assert outcome(images([], [0.9]), np.array([0.5])).false_alarm_rate is None


def test_interval_holds_what_new_images_show() -> None:
    """19 of 20 such intervals hold the true rate: of thresholds chosen on other images, here."""
    truth = random_scores(seed=100, n=40_000)
    held = 0
    for seed in range(40):
        thresholds = thresholds_for(random_scores(seed=seed), 0.05)
        rate = outcome(truth, thresholds).false_alarm_rate
        seen = outcome(random_scores(seed=500 + seed, n=300), thresholds).false_alarm_rate
        assert rate is not None and seen is not None
        held += seen.low <= rate.value <= seen.high
    assert held >= 36


def test_points_are_chosen_on_val_alone() -> None:
    val, names = random_scores(1), ("a", "b", "c")
    points = [operating_points(val, random_scores(seed), names, np.full(3, 0.5), 0.1) for seed in (2, 3)]
    assert [p.wanted for p in points[0]] == [None, *RATES, 0.1]
    assert [p.thresholds for p in points[0]] == [p.thresholds for p in points[1]]
    assert [p.val for p in points[0]] == [p.val for p in points[1]]
    assert [p.test for p in points[0]] != [p.test for p in points[1]]
    assert points[0][0].thresholds == {"a": 0.5, "b": 0.5, "c": 0.5}


@pytest.mark.parametrize(("rate", "images"), [(0.01, 100), (0.02, 50), (0.05, 20), (0.03, 34), (0.5, 2), (0.0, 1)])
def test_images_that_resolve_a_rate(rate: float, images: int) -> None:
    """With one image less, even one false alarm is more than the rate, and the thresholds are those of none at all."""
    assert images_for(rate) == images
    if rate:
        assert 1 / images <= rate + 1e-12 < 1 / (images - 1)
    scores = np.linspace(0.1, 0.9, images)[:, None]

    def chosen(n: int, rate: float) -> np.ndarray:
        return thresholds_for(ImageScores(scores[:n], np.zeros((n, 1), bool)), rate)

    if rate:
        assert chosen(images - 1, rate) == chosen(images - 1, 0.0) and chosen(images, rate) < chosen(images, 0.0)


def test_points_say_whether_their_rate_is_resolved() -> None:
    val = random_scores(1, good=0.4)
    points = operating_points(val, val, ("a", "b", "c"), np.full(3, 0.5), None)
    good = points[0].val.good
    assert [p.resolved for p in points] == [True, good >= 100, good >= 50, good >= 20]
    assert [p.resolved for p in points] == [p.is_resolved for p in points]


def test_selected_point_is_that_of_the_wanted_rate() -> None:
    points = operating_points(random_scores(1), random_scores(2), ("a", "b", "c"), np.full(3, 0.5), 0.02)
    assert len(points) == 1 + len(RATES)
    assert selected(Operating(wanted=None, points=points)) == points[0]
    assert selected(Operating(wanted=0.02, points=points)) == points[2]
