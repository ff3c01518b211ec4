"""What stages of all tasks share: the images of the trainings, and reading what a trainer has left."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from dfssd.errors import UserError
from dfssd.evaluation.export import Comparison
from dfssd.loading.store import Images, ImageStore, open_store
from dfssd.results.sections import MaskTraining, Status, Training
from dfssd.runs.configure import configure
from dfssd.runs.folder import RunFolder
from dfssd.runs.plan import PlannedStage
from dfssd.runs.stages import StagedRun
from dfssd.runs.summaries import read_summary
from dfssd.trainers import validation_data

EXAMPLES = Path(__file__).parents[1] / "results" / "without_schema"


def left_by_a_trainer(tmp_path: Path, example: str, **more: Any) -> Path:
    record = json.loads((EXAMPLES / f"{example}.json").read_text(encoding="utf-8"))
    file = tmp_path / "student.json"
    file.write_text(json.dumps({**record["training"]["student"], **more}), encoding="utf-8")
    return file


class Counting(StagedRun):
    """Two stages that train, and the one after them; each notes what the first has left in memory."""

    STAGES = ("teacher", "student", "test")
    kept: ClassVar[dict[str, bool]] = {}
    validated: ClassVar[dict[str, bool]] = {}
    images: Images
    first: weakref.ref[ImageStore]

    def _look(self, name: str) -> Status:
        self.kept[name] = self.first() is not None
        self.validated[name] = "batches" in validation_data.beside
        return "done"

    def teacher(self) -> Status:
        validation_data.beside["batches"] = torch.zeros(1)
        self.first = weakref.ref(open_store([self.images], 8, torch.device("cpu")))
        return self._look("teacher")

    def student(self) -> Status:
        return self._look("student")

    def test(self) -> Status:
        return self._look("test")

    def plan(self) -> list[PlannedStage]:
        return []

    def verdict(self) -> str:
        return "No verdict."

    def show(self) -> None:
        """Nothing to show."""

    @staticmethod
    def write_report(folder: Path) -> None:
        raise NotImplementedError

    @staticmethod
    def measured(folder: Path, role: str) -> None:
        raise NotImplementedError

    def export_section(self) -> dict[str, Any]:
        return {}

    def comparison(self) -> Comparison:
        raise NotImplementedError

    def learns_from_unlabeled(self) -> bool:
        return False

    def train_round(self, number: int, teacher: Path) -> Path:
        raise NotImplementedError

    def val_score(self, weights: Path) -> float:
        raise NotImplementedError


def test_images_of_the_trainings_are_kept_until_the_last_one(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(b"read by the function below")
    config = configure({"data": "demo", "project": str(tmp_path / "runs"), "device": "cpu"})
    run = Counting(RunFolder.create(config, "the line"), config)
    run.images = Images([str(file)], lambda number: np.zeros((8, 8, 3), np.uint8))
    run.run()
    assert run.kept == run.validated == {"teacher": True, "student": True, "test": False}


def test_training_and_distillation_are_distinguished(tmp_path: Path) -> None:
    distill = json.loads((EXAMPLES / "boxes.json").read_text(encoding="utf-8"))["distill"]
    training, found, _ = read_summary(left_by_a_trainer(tmp_path, "boxes", distill=distill), Training)
    assert training.epochs_done == 30 and training.val_score == 0.10719
    assert found and set(found.terms) == set(distill["terms"]) and found.selftest.teacher_unchanged


def test_training_without_a_teacher(tmp_path: Path) -> None:
    training, *others = read_summary(left_by_a_trainer(tmp_path, "masks"), MaskTraining)
    assert isinstance(training, MaskTraining) and "kd" in training.losses and others == [None, None]


def test_training_on_images_alone(tmp_path: Path) -> None:
    learned = {"method": "dense", "images": 9, "losses": {"where": [0.7, None]}, "spread": [0.5]}
    summary = read_summary(left_by_a_trainer(tmp_path, "boxes", pretraining=learned), Training)
    assert summary.pretraining and summary.pretraining.losses == {"where": (0.7, None)} and summary.distill is None


def test_key_that_nobody_knows_is_not_lost_in_silence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"student.json is damaged .*mood.*; remove .*student, and that training is"):
        read_summary(left_by_a_trainer(tmp_path, "boxes", mood="good"), Training)


@pytest.mark.parametrize("content", ["", "{half", "null", "[1, 2]", "{}", b"\xff"])
def test_damaged_summary_of_a_training_is_one_line(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "student.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"student\.json is damaged or missing") as caught:
        read_summary(file, Training)
    assert len(caught.value.problems) == 1
