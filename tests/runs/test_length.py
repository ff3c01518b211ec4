"""Optimizer steps, by hand."""

from __future__ import annotations

import pytest

from dfssd.runs.length import is_random, optimizer_steps


@pytest.mark.parametrize(
    ("batches", "epochs", "accumulate", "warmup", "steps"),
    [
        (5, 120, 1, 3.0, 600),  # a step with every batch
        (4, 3, 4, 0.0, 3),  # no warm-up: after batches 4, 8, and 12
        (5, 3, 4, 0.0, 3),  # three of 15 batches are lost
        (1, 3, 64, 0.0, 1),  # not more than there are
        (4, 1, 4, 3.0, 1),  # the last epoch is no warm-up
        (2, 3, 2, 1.0, 3),  # needed: 1, 2 (1.5, rounded to even), 2, ...: after batches 1, 3, and 5
    ],
)
def test_steps_by_hand(batches: int, epochs: int, accumulate: int, warmup: float, steps: int) -> None:
    assert optimizer_steps(batches, epochs, accumulate, warmup) == steps


def test_a_long_training_is_counted_without_its_batches() -> None:
    assert optimizer_steps(10**6, 1000, 4, 0.0) == 250 * 10**6


@pytest.mark.parametrize(("start", "random"), [("yolov8n.yaml", True), ("a/b.yml", True), ("yolov8n.pt", False)])
def test_architectures_have_random_weights(start: str, random: bool) -> None:
    assert is_random(start) is random
