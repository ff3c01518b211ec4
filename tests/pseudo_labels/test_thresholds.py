"""The threshold rule in closed form, and its zones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dfssd.pseudo_labels.thresholds import ClassThresholds, precision_thresholds
from tests.thresholds import class_thresholds


def update(thresholds: ClassThresholds, *detections: tuple[int, float]) -> None:
    classes, scores = zip(*detections, strict=True) if detections else ((), ())
    thresholds.update(np.array(classes, dtype=np.int64), np.array(scores))


def test_nothing_seen_gives_tau0():
    assert class_thresholds(3).thresholds().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 0.999])
@pytest.mark.parametrize("batches", [1, 2, 50])
def test_constant_confidence_is_reached_at_once(decay, batches):
    """The bias correction: e_n / (1 - beta^n) of a constant is that constant, from the first batch."""
    thresholds = class_thresholds(2, decay=decay)
    for _ in range(batches):
        update(thresholds, (1, 0.8))
    assert thresholds.thresholds() == pytest.approx([0.5, 0.8])


def test_closed_form_of_changing_confidences():
    rng = np.random.default_rng(0)
    means, decay = rng.uniform(0.55, 0.85, 20), 0.9
    thresholds = class_thresholds(1, decay=decay)
    for mean in means:
        update(thresholds, (0, mean - 0.05), (0, mean + 0.05))
    weights = (1 - decay) * decay ** np.arange(19, -1, -1)
    assert thresholds.thresholds()[0] == pytest.approx((weights * means).sum() / (1 - decay**20))


def test_a_batch_counts_once_however_many_detections_it_holds():
    few, many = class_thresholds(1, decay=0.5), class_thresholds(1, decay=0.5)
    update(few, (0, 0.9))
    update(many, *[(0, 0.9)] * 100)
    for t in (few, many):
        update(t, (0, 0.6))
    # (0.5 * 0.5 * 0.9 + 0.5 * 0.6) / (1 - 0.25)
    assert few.thresholds() == pytest.approx([0.7])
    assert many.thresholds() == pytest.approx([0.7])


def test_classes_move_apart_from_each_other_and_only_where_present():
    thresholds = class_thresholds(3, decay=0.5)
    update(thresholds, (0, 0.6), (1, 0.8))
    update(thresholds, (0, 0.9))
    assert thresholds.thresholds() == pytest.approx([(0.25 * 0.6 + 0.5 * 0.9) / 0.75, 0.8, 0.5])


def test_thresholds_are_clipped():
    thresholds = class_thresholds(2, tau0=0.5, tau_max=0.9)
    update(thresholds, (0, 0.2), (1, 0.99))
    assert thresholds.thresholds().tolist() == [0.5, 0.9]


def test_background_scores_take_no_part():
    with_noise, without = class_thresholds(1), class_thresholds(1)
    update(with_noise, (0, 0.8), (0, 0.0999), (0, 0.01))
    update(with_noise, (0, 0.05))  # a batch of noise alone does not count as a batch of the class
    update(without, (0, 0.8))
    assert with_noise.state_dict() == without.state_dict()


def test_empty_batch_changes_nothing():
    thresholds = class_thresholds(2)
    update(thresholds)
    thresholds.update(np.zeros(0), np.zeros(0))
    assert thresholds.state_dict() == class_thresholds(2).state_dict()
    assert thresholds.zone(np.zeros(0, dtype=int), np.zeros(0)).shape == (0,)


def test_zones_at_their_edges():
    thresholds = class_thresholds(2, tau_low=0.1, tau0=0.5, decay=0.0)
    update(thresholds, (1, 0.75))
    zones = thresholds.zone(np.array([0, 0, 0, 0, 1, 1]), np.array([0.0999, 0.1, 0.4999, 0.5, 0.7499, 0.75]))
    assert zones.tolist() == ["background", "ignore", "ignore", "accept", "ignore", "accept"]


def test_zoning_does_not_move_the_thresholds():
    thresholds = class_thresholds(1)
    thresholds.zone(np.array([0, 0]), np.array([0.9, 0.9]))
    assert thresholds.state_dict() == class_thresholds(1).state_dict()


def test_state_survives_json_and_goes_on_identically():
    first = class_thresholds(2, decay=0.9)
    update(first, (0, 0.7), (1, 0.6))
    second = class_thresholds(2, decay=0.9)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for t in (first, second):
        update(t, (1, 0.85))
    assert first.thresholds().tolist() == second.thresholds().tolist()


def test_state_of_another_rule_is_rejected():
    with pytest.raises(ValueError, match="saved thresholds were made with"):
        class_thresholds(2, decay=0.9).load_state_dict(class_thresholds(2).state_dict())
    with pytest.raises(ValueError, match="3 classes"):
        class_thresholds(2).load_state_dict(class_thresholds(3).state_dict())


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
def test_wrong_rules_are_reported(options, message):
    with pytest.raises(ValueError, match=message):
        class_thresholds(**options)


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
def test_wrong_detections_are_reported(classes, scores, message):
    for method in (class_thresholds(2).update, class_thresholds(2).zone):
        with pytest.raises(ValueError, match=message):
            method(np.array(classes), np.array(scores))


def chosen(scores, correct, precision=0.9, *, classes=None, nc=1, tau_low=0.1) -> list[float]:
    classes = np.zeros(len(scores), dtype=np.int64) if classes is None else np.array(classes)
    return precision_thresholds(
        classes, np.array(scores), np.array(correct, bool), nc, precision=precision, tau_low=tau_low
    ).tolist()


FALLING = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


def test_precision_threshold_hand_worked():
    """Estimates after 5, 6, 7 detections: 5.5 / 6 = 0.917, 6.5 / 7 = 0.929, 6.5 / 8 = 0.8125."""
    correct = [1, 1, 1, 1, 1, 1, 0]
    assert chosen(FALLING, correct, 0.9) == [0.3]
    assert chosen(FALLING, correct, 0.92) == [0.3]
    assert chosen(FALLING, correct, 0.8) == [0.2]
    assert chosen(FALLING, correct, 0.93) == [0.9]  # 0.929 falls short: unreachable
    assert chosen(FALLING[:6], correct[:6], 0.925) == [0.3]


def test_precision_threshold_looks_past_a_dip():
    """5.5 / 7 = 0.79 after 6, but 7.5 / 9 = 0.83 after 8: all eight together are right often enough."""
    assert chosen([*FALLING, 0.15], [1, 1, 1, 1, 1, 0, 1, 1], 0.83) == [0.15]


def test_precision_threshold_does_not_depend_on_the_order():
    order = [3, 0, 6, 2, 5, 1, 4]
    correct = np.array([1, 1, 1, 1, 1, 1, 0])
    assert chosen(np.array(FALLING)[order], correct[order]) == [0.3]


def test_equal_scores_are_accepted_together():
    """0.4 is held by a right and a wrong detection; letting in the right one alone would reach 0.9."""
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4]
    for pair in ((1, 0), (0, 1)):
        assert chosen(scores, [1, 1, 1, 1, 1, *pair]) == [0.5]


def test_few_detections_are_no_evidence():
    assert np.isnan(chosen(FALLING[:4], [1] * 4)[0])
    assert np.isnan(chosen([], [])[0])
    assert np.isnan(chosen([0.8, 0.7, 0.6, 0.5, 0.0999], [1] * 5)[0])  # the last is background
    assert chosen(FALLING[:5], [1] * 5) == [0.4]


def test_unreachable_precision_gives_the_highest_threshold():
    assert chosen(FALLING, [0] * 7) == [0.9]
    assert chosen(FALLING, [1] * 7, 1.0) == [0.9]


def test_reached_above_the_highest_threshold_only():
    assert chosen([0.99, 0.98, 0.97, 0.96, 0.95, 0.3, 0.2], [1] * 5 + [0] * 2) == [0.9]


def test_classes_are_judged_apart():
    scores, correct, classes = FALLING * 2, [1] * 7 + [0] * 7, [0] * 7 + [2] * 7
    low, none, high = chosen(scores, correct, classes=classes, nc=3)
    assert (low, high) == (0.2, 0.9) and np.isnan(none)


def test_threshold_never_falls_when_the_target_rises():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, 400)
    classes, correct = rng.integers(0, 4, 400), rng.uniform(0, 1, 400) < scores
    found = [chosen(scores, correct, p, classes=classes, nc=4) for p in np.linspace(0.01, 1, 100)]
    assert (np.diff(found, axis=0) >= 0).all()
    assert len({row[0] for row in found}) > 5
    for row, p in zip(found, np.linspace(0.01, 1, 100)):
        for c, t in enumerate(row):
            taken = correct[(classes == c) & (scores >= t)]
            assert t == 0.9 or (taken.sum() + 0.5) / (len(taken) + 1) >= p


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": 0.0}, "precision=0.0"),
        ({"precision": 1.1}, "precision=1.1"),
        ({"tau_low": 0.95}, "tau_low=0.95"),
        ({"classes": [0, 0, 1]}, "from 0 to 0"),
        ({"correct": [1]}, "correct must be"),
    ],
)
def test_wrong_evidence_is_reported(options, message):
    with pytest.raises(ValueError, match=message):
        chosen(**{"scores": [0.5, 0.6, 0.7], "correct": [1, 1, 1], **options})


def test_fixed_thresholds_do_not_move_and_may_lie_outside_the_range_of_the_rest():
    thresholds = class_thresholds(3, tau_max=0.8, fixed=np.array([0.2, np.nan, 0.9]))
    assert thresholds.thresholds().tolist() == [0.2, 0.5, 0.9]
    update(thresholds, (0, 0.8), (1, 0.8), (2, 0.8))
    assert thresholds.thresholds() == pytest.approx([0.2, 0.8, 0.9])
    zones = thresholds.zone(np.array([0, 0, 1, 2]), np.array([0.2, 0.19, 0.75, 0.85]))
    assert zones.tolist() == ["accept", "ignore", "ignore", "ignore"]


@pytest.mark.parametrize("fixed", [[0.05], [1.05], [0.5, 0.5], 0.5])
def test_wrong_fixed_thresholds_are_reported(fixed):
    with pytest.raises(ValueError, match="fixed"):
        class_thresholds(1, fixed=np.array(fixed))


def test_thresholds_are_handed_out_as_a_copy():
    thresholds = class_thresholds(2)
    thresholds.thresholds()[:] = 0.0
    assert thresholds.thresholds().tolist() == [0.5, 0.5]


def test_state_alone_makes_the_thresholds_anew():
    first = class_thresholds(2, tau_low=0.05, tau0=0.4, tau_max=0.8, decay=0.9, fixed=np.array([np.nan, 0.1]))
    update(first, (0, 0.7), (1, 0.6))
    state = first.state_dict()
    second = ClassThresholds.from_state(json.loads(json.dumps(state, allow_nan=False)))
    assert state["fixed"] == [None, 0.1] and second.rule == first.rule
    for t in (first, second):
        update(t, (0, 0.75))
    assert second.thresholds().tolist() == first.thresholds().tolist()
    assert second.state_dict() == first.state_dict() != state


def test_fixed_thresholds_are_loaded_too():
    thresholds = class_thresholds(2)
    update(thresholds, (0, 0.7))
    thresholds.thresholds()
    thresholds.load_state_dict(class_thresholds(2, fixed=np.array([0.3, np.nan])).state_dict())
    assert thresholds.thresholds().tolist() == [0.3, 0.5]


def test_broken_state_is_rejected():
    state = class_thresholds(2).state_dict()
    for broken in ({**state, "fixed": [None]}, {**state, "batches": [0]}, {**state, "fixed": [None, 0.01]}):
        with pytest.raises(ValueError, match=r"saved thresholds|fixed="):
            ClassThresholds.from_state(broken)
