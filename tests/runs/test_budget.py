"""How often a network is validated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dfssd.runs.budget import validation_interval
from tests.configured import DEFAULTS


def interval(val: int, images: int, epochs: int, val_every: Any = "auto") -> int:
    config = replace(DEFAULTS, own={**DEFAULTS.own, "val_every": val_every})
    return validation_interval(config, val=val, images=images, epochs=epochs)


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
