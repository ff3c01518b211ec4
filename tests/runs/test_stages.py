"""What stages of all tasks share: reading what a trainer has left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dfssd.results.sections import MaskTraining, Training
from dfssd.runs.stages import read_summary

EXAMPLES = Path(__file__).parents[1] / "results" / "without_schema"


def left_by_a_trainer(tmp_path: Path, example: str, **more: Any) -> Path:
    record = json.loads((EXAMPLES / f"{example}.json").read_text(encoding="utf-8"))
    file = tmp_path / "student.json"
    file.write_text(json.dumps({**record["training"]["student"], **more}), encoding="utf-8")
    return file


def test_training_and_distillation_are_distinguished(tmp_path: Path) -> None:
    distill = json.loads((EXAMPLES / "boxes.json").read_text(encoding="utf-8"))["distill"]
    training, found = read_summary(left_by_a_trainer(tmp_path, "boxes", distill=distill), Training)
    assert training.epochs_done == 30 and training.val_score == 0.10719
    assert found and set(found.terms) == set(distill["terms"]) and found.selftest.teacher_unchanged


def test_training_without_a_teacher(tmp_path: Path) -> None:
    training, found = read_summary(left_by_a_trainer(tmp_path, "masks"), MaskTraining)
    assert isinstance(training, MaskTraining) and "kd" in training.losses and found is None


def test_key_that_nobody_knows_is_not_lost_in_silence(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="mood"):
        read_summary(left_by_a_trainer(tmp_path, "boxes", mood="good"), Training)
