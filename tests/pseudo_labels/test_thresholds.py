"""The threshold rule in closed form, and its zones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dfssd.pseudo_labels.thresholds import ClassThresholds


def update(thresholds: ClassThresholds, *detections: tuple[int, float]) -> None:
    classes, scores = zip(*detections, strict=True) if detections else ((), ())
    thresholds.update(np.array(classes, dtype=np.int64), np.array(scores))


def test_nothing_seen_gives_tau0():
    assert ClassThresholds(3).thresholds().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 0.999])
@pytest.mark.parametrize("batches", [1, 2, 50])
def test_constant_confidence_is_reached_at_once(decay, batches):
    """The bias correction: e_n / (1 - beta^n) of a constant is that constant, from the first batch."""
    thresholds = ClassThresholds(2, decay=decay)
    for _ in range(batches):
        update(thresholds, (1, 0.8))
    assert thresholds.thresholds() == pytest.approx([0.5, 0.8])


def test_closed_form_of_changing_confidences():
    rng = np.random.default_rng(0)
    means, decay = rng.uniform(0.55, 0.85, 20), 0.9
    thresholds = ClassThresholds(1, decay=decay)
    for mean in means:
        update(thresholds, (0, mean - 0.05), (0, mean + 0.05))
    weights = (1 - decay) * decay ** np.arange(19, -1, -1)
    assert thresholds.thresholds()[0] == pytest.approx((weights * means).sum() / (1 - decay**20))


def test_a_batch_counts_once_however_many_detections_it_holds():
    few, many = ClassThresholds(1, decay=0.5), ClassThresholds(1, decay=0.5)
    update(few, (0, 0.9))
    update(many, *[(0, 0.9)] * 100)
    for t in (few, many):
        update(t, (0, 0.6))
    # (0.5 * 0.5 * 0.9 + 0.5 * 0.6) / (1 - 0.25)
    assert few.thresholds() == pytest.approx([0.7])
    assert many.thresholds() == pytest.approx([0.7])


def test_classes_move_apart_from_each_other_and_only_where_present():
    thresholds = ClassThresholds(3, decay=0.5)
    update(thresholds, (0, 0.6), (1, 0.8))
    update(thresholds, (0, 0.9))
    assert thresholds.thresholds() == pytest.approx([(0.25 * 0.6 + 0.5 * 0.9) / 0.75, 0.8, 0.5])


def test_thresholds_are_clipped():
    thresholds = ClassThresholds(2, tau0=0.5, tau_max=0.9)
    update(thresholds, (0, 0.2), (1, 0.99))
    assert thresholds.thresholds().tolist() == [0.5, 0.9]


def test_background_scores_take_no_part():
    with_noise, without = ClassThresholds(1), ClassThresholds(1)
    update(with_noise, (0, 0.8), (0, 0.0999), (0, 0.01))
    update(with_noise, (0, 0.05))  # a batch of noise alone does not count as a batch of the class
    update(without, (0, 0.8))
    assert with_noise.state_dict() == without.state_dict()


def test_empty_batch_changes_nothing():
    thresholds = ClassThresholds(2)
    update(thresholds)
    thresholds.update(np.zeros(0), np.zeros(0))
    assert thresholds.state_dict() == ClassThresholds(2).state_dict()
    assert thresholds.zone(np.zeros(0, dtype=int), np.zeros(0)).shape == (0,)


def test_zones_at_their_edges():
    thresholds = ClassThresholds(2, tau_low=0.1, tau0=0.5, decay=0.0)
    update(thresholds, (1, 0.75))
    zones = thresholds.zone(np.array([0, 0, 0, 0, 1, 1]), np.array([0.0999, 0.1, 0.4999, 0.5, 0.7499, 0.75]))
    assert zones.tolist() == ["background", "ignore", "ignore", "accept", "ignore", "accept"]


def test_zoning_does_not_move_the_thresholds():
    thresholds = ClassThresholds(1)
    thresholds.zone(np.array([0, 0]), np.array([0.9, 0.9]))
    assert thresholds.state_dict() == ClassThresholds(1).state_dict()


def test_state_survives_json_and_goes_on_identically():
    first = ClassThresholds(2, decay=0.9)
    update(first, (0, 0.7), (1, 0.6))
    second = ClassThresholds(2, decay=0.9)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for t in (first, second):
        update(t, (1, 0.85))
    assert first.thresholds().tolist() == second.thresholds().tolist()


def test_state_of_another_rule_is_refused():
    with pytest.raises(ValueError, match="saved thresholds were made with"):
        ClassThresholds(2, decay=0.9).load_state_dict(ClassThresholds(2).state_dict())
    with pytest.raises(ValueError, match="3 classes"):
        ClassThresholds(2).load_state_dict(ClassThresholds(3).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nc": 0}, "nc=0"),
        ({"nc": 1, "tau_low": 0.6}, "must hold"),
        ({"nc": 1, "tau_max": 0.4}, "must hold"),
        ({"nc": 1, "tau_max": 1.1}, "must hold"),
        ({"nc": 1, "decay": 1.0}, "decay=1.0"),
    ],
)
def test_wrong_rules_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        ClassThresholds(**options)


@pytest.mark.parametrize(
    ("classes", "scores", "message"),
    [
        ([0, 2], [0.5, 0.5], "from 0 to 1"),
        ([-1], [0.5], "from 0 to 1"),
        ([0.0], [0.5], "integers"),
        ([0], [np.nan], "numbers from 0 to 1"),
        ([0], [1.5], "numbers from 0 to 1"),
        ([0, 1], [0.5], r"must be \(n,\) both"),
    ],
)
def test_wrong_detections_are_told(classes, scores, message):
    for method in (ClassThresholds(2).update, ClassThresholds(2).zone):
        with pytest.raises(ValueError, match=message):
            method(np.array(classes), np.array(scores))
