"""The weight schedules."""

from __future__ import annotations

import math

import pytest

from dfssd.distillation.schedules import SCHEDULES, cosine_decay, factor


def test_names():
    assert list(SCHEDULES) == ["constant", "cosine", "per_epoch_cosine", "linear_ramp", "sigmoid_ramp"]


@pytest.mark.parametrize(("progress", "value"), [(0, 1.0), (0.25, 0.8682), (0.5, 0.55), (0.75, 0.2318), (1, 0.1)])
def test_cosine_decay_values(progress, value):
    assert cosine_decay(progress) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(("step", "value"), [(0, 1.0), (500, 0.55), (1000, 0.1), (2000, 0.1)])
def test_cosine_runs_once_over_the_training(step, value):
    assert factor("cosine", step, 1000, 100) == pytest.approx(value)


@pytest.mark.parametrize(("step", "value"), [(0, 1.0), (50, 0.55), (99, 0.1002), (100, 1.0), (150, 0.55)])
def test_per_epoch_cosine_starts_anew(step, value):
    assert factor("per_epoch_cosine", step, 1000, 100) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(("step", "value"), [(0, 0.01), (49, 0.5), (99, 1.0), (999, 1.0)])
def test_linear_ramp(step, value):
    assert factor("linear_ramp", step, 1000, 100) == pytest.approx(value)


def test_sigmoid_ramp():
    assert factor("sigmoid_ramp", 49, 1000, 100) == pytest.approx(math.exp(-1.25))
    assert factor("sigmoid_ramp", 99, 1000, 100) == 1


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("total", "per_epoch"), [(1, 1), (7, 3), (1000, 100)])
def test_factors_are_in_range_and_never_zero(kind, total, per_epoch):
    assert all(0 < factor(kind, step, total, per_epoch) <= 1 for step in range(total + 2))


def test_constant():
    assert {factor("constant", step, 10, 5) for step in range(11)} == {1.0}


def test_errors_are_reported():
    with pytest.raises(ValueError, match="schedule=cosin is not known; choose one of: constant, cosine"):
        factor("cosin", 0, 10, 5)
    with pytest.raises(ValueError, match="not a position in a training"):
        factor("cosine", 0, 0, 5)
