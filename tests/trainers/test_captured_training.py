"""Whole trainings of the real trainers with captured passes: the weights and tables of the eager ones.

A tape of operators stands in for the graphs (:mod:`tests.tape`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load

from dfssd.benchmark.steps import Step
from dfssd.detection.trainer import StudentTrainer
from dfssd.runs.length import optimizer_steps
from dfssd.segmentation.model import build_model
from dfssd.segmentation.trainer import SemanticStageTrainer
from dfssd.trainers.acceleration import Acceleration
from dfssd.trainers.graphs import CapturedPass
from dfssd.trainers.results_csv import read_results_csv
from dfssd.trainers.stage import StageTrainer
from tests import configured
from tests.configured import segmentation_settings
from tests.segmentation.material import NEU_NAMES, mask_data
from tests.segmentation.test_model import checkpoint, lively
from tests.segmentation.test_trainer import overrides as mask_overrides
from tests.tape import SilentRecorder, TapeRecorder
from tests.trainers.test_stages import TERMS, overrides, student_settings

pytestmark = pytest.mark.train


def trained(trainer: StageTrainer, *, capture: bool) -> tuple[dict[str, torch.Tensor], list[dict[str, str]], int]:
    """State of the last checkpoint, rows of ``results.csv``, and replays, of a training that ends here."""
    recorders: list[TapeRecorder] = []

    def recorder(device: torch.device) -> TapeRecorder:
        recorders.append(TapeRecorder())
        return recorders[-1]

    way = "graph" if capture else "eager"
    trainer.acceleration = Acceleration(way, trainer.device, obstacle=trainer.obstacle(), recorder=recorder)
    states: list[dict[str, Any]] = []

    def keep(trainer: Any) -> None:
        states.append({**torch_load(trainer.last)["ema"].state_dict(), **trainer.model.state_dict()})

    trainer.add_callback("on_model_save", keep)
    trainer.train()
    timed = ("time", "seconds")
    rows = [{k: v for k, v in row.items() if k not in timed} for row in read_results_csv(trainer.csv)]
    state = {k: v for k, v in states[-1].items() if isinstance(v, torch.Tensor)}
    return state, rows, sum(r.replays for r in recorders)


def assert_same(eager: Any, captured: Any, *, bits: bool = True) -> None:
    for row, other_row in zip(captured[1], eager[1], strict=True):
        assert row.keys() == other_row.keys()
        if bits:
            assert row == other_row
        else:  # the rows have five digits
            assert [float(v) for v in row.values()] == pytest.approx(
                [float(other_row[k]) for k in row], rel=1e-3, abs=1e-5
            )
    assert captured[0].keys() == eager[0].keys()
    for name, value in eager[0].items():
        other = captured[0][name]
        assert torch.equal(value, other) if bits else torch.allclose(value, other, rtol=1e-3, atol=1e-4), name
    assert eager[2] == 0


def summary(stage: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.with_name(f"{stage.name}.json").read_text(encoding="utf-8"))
    return found


def test_network_that_is_trained_alone(squares: Path, tmp_path: Path) -> None:
    results = []
    for capture in (False, True):
        stage = tmp_path / str(capture) / "train" / "baseline"
        configured.labels_alone(4).write(stage)
        trainer = StageTrainer(overrides=overrides(squares, stage, nbs=8, warmup_epochs=1))
        results.append(trained(trainer, capture=capture))
        assert summary(stage)["passes"] == ("graph" if capture else "eager") + ": as configured"
        assert summary(stage)["optimizer_steps"] == optimizer_steps(4, 2, 2, 1.0) == 5, "as planned"
    assert_same(*results, bits=False)  # sums may be rounded otherwise: which, differs between processors
    assert results[1][2] == 2 * 8, "all steps are replayed, forth and back"


@pytest.mark.parametrize(
    "kind",
    [
        "frozen teacher",
        pytest.param("moving average, bf16", marks=pytest.mark.long),
        pytest.param("weights that follow from gradients", marks=pytest.mark.long),
    ],
)
def test_student_with_a_teacher(kind: str, squares: Path, pseudo, teacher_file: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"batches_per_epoch": 4}
    pseudo_options: dict[str, Any] = {}
    if kind == "moving average, bf16":
        pseudo_options = {"mode": "online"}
        changes |= {"teacher": "", "pseudo": "", "strong_view": 0.5, "cpu_bf16": True}
    elif kind == "weights that follow from gradients":
        changes |= {"balance": True, "terms": {name: {**options, "share": 0.2} for name, options in TERMS.items()}}
    results = []
    for capture in (False, True):
        stage = tmp_path / str(capture) / "train" / "student"
        replace(student_settings(pseudo, teacher_file, **pseudo_options), **changes).write(stage)
        trainer = StudentTrainer(overrides=overrides(squares, stage, nbs=8))
        results.append(trained(trainer, capture=capture))
        if capture:
            assert all(isinstance(one, CapturedPass) for one in trainer.pair.captured.values())
            assert list(trainer.pair.captured) == ["teacher", "student"]
    assert_same(*results)
    assert results[1][2] >= 3 * 4, "steps that measure no gradients are replayed: teacher, student, and back"


def test_captured_student_launches_less_than_ultralytics_training_of_the_student_alone(
    squares: Path, pseudo, teacher_file: Path, tmp_path: Path
) -> None:
    plain = Step(DetectionTrainer(overrides=overrides(squares, tmp_path / "plain", nbs=4)))
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, batches_per_epoch=9).write(stage)
    trainer = StudentTrainer(overrides=overrides(squares, stage, nbs=4))
    trainer.acceleration = Acceleration("graph", trainer.device, recorder=lambda device: SilentRecorder())
    ours = Step(trainer)
    counts = []
    for step in (plain, ours):
        for _ in range(4):  # the first ones measure gradients, and make the state of the optimizer
            step()
        counts.append(step.operators(as_on_gpu=True).launched)
        step.close()
    assert counts[1] < 0.7 * counts[0], counts


def test_mask_network_with_a_teacher(tmp_path: Path) -> None:
    data = mask_data(tmp_path / "data", side=40)
    torch.manual_seed(1)
    teacher = checkpoint(tmp_path / "teacher.pt", lively(build_model("mffmetal-12", 4, NEU_NAMES)))
    settings = {"teacher": str(teacher), "kd": 15.0, "unlabeled": str(data.parent / "unlabeled.txt")}
    results = []
    for capture in (False, True):
        stage = tmp_path / str(capture) / "train" / "student"
        segmentation_settings(batches_per_epoch=3, selftest_steps=2, unlabeled_share=0.5, **settings).write(stage)
        # not Adam, which makes a step of one size of every rounding error of a gradient that is next to nothing
        trainer = SemanticStageTrainer(overrides=mask_overrides(data, stage, nbs=8, optimizer="SGD"))
        results.append(trained(trainer, capture=capture))
    assert_same(*results, bits=False)  # the gradient of this loss comes in another memory layout than the logits
    assert results[1][2] == 3 * 6, "all steps are replayed: teacher, student, and back"
