"""The never-worse guard: when it acts, what it remembers, which network is selected."""

from __future__ import annotations

import json

import pytest

from dfssd.trainers.guard import Guard


def guard(baseline: list[float | None], patience: int = 2, noise: float = 0.02, every: int = 1) -> Guard:
    return Guard(baseline, noise=noise, patience=patience, every=every)


def test_student_that_keeps_up_is_left_alone() -> None:
    g = guard([0.1, 0.2, 0.3, 0.4])
    assert [g.step(e, v) for e, v in enumerate([0.09, 0.19, 0.29, 0.45])] == [None] * 4
    assert g.factor == 1 and g.events == []


def test_cuts_back_then_switches_off_and_says_why() -> None:
    g = guard([0.3] * 6)
    lines = [g.step(e, 0.1) for e in range(6)]
    assert [line is not None for line in lines] == [False, True, False, True, False, False]
    assert "cut back to 0.25" in lines[1] and "0.100 was below the baseline's 0.300" in lines[1]
    assert "switched off" in lines[3] and g.factor == 0
    assert [(e["epoch"], e["factor"]) for e in g.events] == [(2, 0.25), (4, 0.0)]


def test_bad_epochs_must_follow_each_other() -> None:
    g = guard([0.3] * 5)
    assert [g.step(e, v) for e, v in enumerate([0.1, 0.3, 0.1, 0.3, 0.1])] == [None] * 5


def test_difference_within_noise_is_no_difference() -> None:
    g = guard([0.3] * 3, patience=1)
    assert g.step(0, 0.281) is None
    assert g.step(1, 0.279) is not None


def test_value_that_is_no_number_is_a_bad_epoch() -> None:
    assert guard([0.3], patience=1).step(0, float("nan")) is not None


def test_baseline_that_stopped_early_stands_for_later_epochs_and_none_means_no_guard() -> None:
    assert guard([0.1, 0.5], patience=1).step(9, 0.3) is not None
    assert guard([], patience=1).step(0, 0.0) is None


def test_goes_on_after_a_resume() -> None:
    g = guard([0.3] * 9)
    for epoch in range(3):
        g.step(epoch, 0.1)
    later = guard([0.3] * 9)
    later.load_state_dict(json.loads(json.dumps(g.state_dict())))
    assert (later.level, later.bad, later.epochs, later.events) == (1, 1, 3, g.events)
    assert later.step(3, 0.1) is not None and later.factor == 0
    assert len(g.events) == 1, "the events are a copy"


def curve(every: int, epochs: int, value: float) -> list[float | None]:
    """Scores of a network that is validated every so many epochs and after the last."""
    return [value if (e + 1) % every == 0 or e + 1 == epochs else None for e in range(epochs)]


@pytest.mark.parametrize(
    ("every", "patience", "acts"),
    [(1, 2, [2, 4]), (2, 4, [4, 8]), (2, 5, [6, 11]), (3, 2, [3, 6]), (4, 8, [8]), (3, 4, [6, 11])],
)
def test_patience_is_in_epochs_however_often_there_is_a_validation(every: int, patience: int, acts: list[int]) -> None:
    g = guard(curve(every, 11, 0.3), patience, every=every)
    for epoch, floor in enumerate(g.baseline):
        if floor is not None:
            g.step(epoch, 0.1)
    assert [event["epoch"] for event in g.events] == acts


def test_only_validations_of_the_same_epoch_are_compared() -> None:
    rising: list[float | None] = [None, 0.1, None, 0.3, None, 0.5]
    g = guard(rising, patience=1, every=2)
    assert [g.step(e, v) for e, v in ((1, 0.1), (3, 0.3), (5, 0.5))] == [None] * 3
    assert guard(rising, patience=1, every=2).step(3, 0.1) is not None, "0.1 is what the baseline had before"
    assert guard(rising, patience=1, every=2).step(9, 0.4) is not None, "the last one stands for later epochs"
    assert guard([None, 0.5], patience=1, every=2).step(0, 0.0) is None, "nothing is known yet"


@pytest.mark.parametrize("changes", [{"patience": 0}, {"noise": -0.1}, {"every": 0}])
def test_bad_settings(changes: dict) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        guard([0.1], **changes)
