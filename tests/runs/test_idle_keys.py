"""Keys that the data leave without effect are named once it has been read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dfssd.runs.checks import tell_idle_keys
from tests.configured import DEFAULTS

USED = "warning: teacher_epochs: no effect, since the teacher is used as it is (see teacher_train=)\n"
ALONE = "warning: {}: no effect, since there are no unlabeled images\n"


@pytest.mark.parametrize(
    ("given", "used_teacher", "unlabeled", "told"),
    [
        ({"epochs": 3, "teacher_epochs": 5, "teacher_train": "auto"}, True, 4, USED),
        ({"epochs": 3, "teacher_epochs": 5}, False, 4, ""),
        ({"strong_view": 0.5, "pseudo.tau0": 0.3, "lr0": 0.1}, False, 0, ALONE.format("pseudo.tau0, strong_view")),
        ({"strong_view": 0.5, "pseudo.tau0": 0.3}, False, 1, ""),
        ({"strong_view": 0, "teacher_rounds": 0}, False, 0, ""),
        ({"old_boxes": True, "pseudo.tau0": 0.3}, False, 0, ""),
        ({"unlabeled_old": True}, False, 0, ALONE.format("unlabeled_old")),
    ],
)
def test_idle_keys_are_named(capsys, given: dict[str, Any], used_teacher: bool, unlabeled: int, told: str) -> None:
    own = {**DEFAULTS.own, **{name: value for name, value in given.items() if name in DEFAULTS.own}}
    tell_idle_keys(replace(DEFAULTS, own=own, given=given), used_teacher=used_teacher, unlabeled=unlabeled)
    assert capsys.readouterr().out == told
