"""The never-worse guard: when it acts, what it remembers, which network is selected."""

from __future__ import annotations

import json

import pytest

from dfssd.trainers.guard import Guard


def guard(baseline: list[float], patience: int = 2, noise: float = 0.02) -> Guard:
    return Guard(baseline, noise=noise, patience=patience)


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
    state = json.loads(json.dumps(g.state_dict()))
    later = guard([0.3] * 9)
    later.load_state_dict(state, epochs=3)
    assert later.factor == 0.25 and later.step(3, 0.1) is not None and later.factor == 0
    earlier = guard([0.3] * 9)
    earlier.load_state_dict(state, epochs=1)  # the checkpoint is older than the deed
    assert earlier.factor == 1 and earlier.events == []
    assert earlier.step(1, 0.1) is not None, "the first bad epoch still counts"
    between = guard([0.3] * 9)
    between.load_state_dict(state, epochs=2)
    assert between.factor == 0.25
    assert [between.step(e, 0.1) is not None for e in (2, 3)] == [False, True]


@pytest.mark.parametrize("changes", [{"patience": 0}, {"noise": -0.1}])
def test_bad_settings(changes: dict) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        guard([0.1], **changes)
