"""How long an epoch is, and how often a network is validated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dfssd.runs.budget import epoch_length, share_of_unlabeled, teacher_schedule, validation_interval, why_longer
from dfssd.runs.key_names import configure_data
from tests.configured import DEFAULTS


def interval(val: int, images: int, epochs: int, val_every: Any = "auto") -> int:
    config = replace(DEFAULTS, own={**DEFAULTS.own, "val_every": val_every})
    return validation_interval(config, val=val, images=images, epochs=epochs)


@pytest.mark.parametrize(
    ("given", "epochs", "trial"),
    [
        ({"epochs": 5}, 1000, "for a short trial add teacher_epochs=5"),
        ({}, 1000, "for a short trial add teacher_epochs=100"),
        ({"epochs": 5, "teacher_min_batches": 600}, 200, ""),
        ({"epochs": 5, "teacher_epochs": 7}, 7, ""),
        ({"epochs": 2000}, 2000, ""),
    ],
)
def test_a_teacher_that_is_planned_longer_says_why(given: dict[str, int], epochs: int, trial: str) -> None:
    """Three batches an epoch."""
    config = configure_data(given)
    planned, _ = teacher_schedule(config, 3)
    why = (
        f"teacher: {epochs:,} epochs, since teacher_epochs=auto plans 3,000 batches (teacher_min_batches) or more, "
        f"whatever epochs= is; {trial}"
    )
    assert planned == epochs and why_longer(config, planned) == (why if trial else "")


@pytest.mark.parametrize(
    ("val", "images", "epochs", "expected"),
    [
        (372, 1200, 100, 2),  # CR7-DET: 372 / (3 * 1200 * 2) = 5 %
        (360, 1200, 100, 1),  # 10 %, not more
        (361, 1200, 100, 2),
        (372, 120, 100, 10),  # 11 would be needed, but ten validations there must be
        (372, 120, 400, 11),
        (372, 120, 19, 1),
        (372, 120, 20, 2),
        (1, 1000, 5, 1),
        (372, 120, 1, 1),
    ],
)
def test_a_tenth_of_the_training_but_ten_validations(val: int, images: int, epochs: int, expected: int) -> None:
    assert interval(val, images, epochs) == expected


def test_given_number_holds() -> None:
    assert interval(372, 120, 100, 7) == interval(1, 1, 1, 7) == 7


def changed(**own: Any) -> Any:
    return replace(DEFAULTS, own={**DEFAULTS.own, **own}, train={"batch": 16})


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "ratio", "expected"),
    [
        (648, 0, 1.0, 41),  # 40.5 batches of 16
        (648, 10_000, 1.0, 81),  # 8 labeled ones in each
        (648, 10_000, 3.0, 162),  # 4
        (648, 216, 3.0, 54),  # a third as many: 12
        (648, 1, 1.0, 44),  # at least one of each: 15
    ],
)
def test_an_epoch_shows_each_labeled_image_once(labeled: int, unlabeled: int, ratio: float, expected: int) -> None:
    config = changed(unlabeled_ratio=ratio)
    assert epoch_length(config, labeled, share_of_unlabeled(config, labeled, unlabeled)) == expected


def test_given_length_of_an_epoch_holds() -> None:
    assert epoch_length(changed(batches_per_epoch=7), 648, 0.5) == 7
