"""Trainings of masks whose views are made on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics.utils.patches import torch_load

from dfssd.loading.loader import DeviceLoader
from dfssd.loading.store import release_stores
from dfssd.segmentation.model import build_model
from dfssd.segmentation.trainer import SemanticStageTrainer
from dfssd.trainers.stage import read_results_csv
from tests.configured import segmentation_settings
from tests.segmentation.material import NEU_NAMES, mask_data
from tests.segmentation.test_model import checkpoint, lively
from tests.segmentation.test_trainer import overrides

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def no_store_stays():
    yield
    release_stores()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mask_data(tmp_path_factory.mktemp("data"), side=40, train=6, unlabeled=4)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = lively(build_model("mffmetal-12", 4, NEU_NAMES))
    return checkpoint(tmp_path_factory.mktemp("teacher") / "teacher.pt", model)


class Watched(SemanticStageTrainer):
    """Keeps what it trains on, and stops in the middle of an epoch if told so."""

    stop_in: int | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seen: dict[int, list[dict[str, Tensor]]] = {}

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.epoch == self.stop_in and len(self.seen.get(self.epoch, ())) == 1:
            raise InterruptedError
        kept = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
        self.seen.setdefault(self.epoch, []).append(kept)
        return super().preprocess_batch(batch)


def settings(data: Path, teacher: Path, **changes: Any) -> dict[str, Any]:
    taught = {"teacher": str(teacher), "kd": 15.0, "unlabeled": str(data.parent / "unlabeled.txt")}
    return {
        "batches_per_epoch": 2,
        "selftest_steps": 1,
        "loader": "device",
        "unlabeled_share": 0.5,
        **taught,
        **changes,
    }


def weights(trainer: SemanticStageTrainer) -> Tensor:
    state = torch_load(trainer.last, map_location="cpu")
    model = state["model"] or state["ema"]
    return torch.cat([value.float().flatten() for value in model.state_dict().values()])


def test_a_resumed_training_equals_one_without_interruption(data: Path, teacher: Path, tmp_path: Path) -> None:
    """Its views to the last bit; its weights but for the order in which threads add up."""
    stages = [tmp_path / name / "student" for name in ("whole", "resumed", "other")]
    for stage in stages:
        segmentation_settings(**settings(data, teacher, jitter=0.5)).write(stage)
    words = [overrides(data, stage, epochs=4, lr0=1e-2) for stage in stages]
    whole = Watched(overrides=words[0])
    whole.train()
    assert isinstance(whole.train_loader, DeviceLoader)
    killed = Watched(overrides=words[1])
    killed.stop_in = 2
    with pytest.raises(InterruptedError):
        killed.train()
    resumed = Watched(overrides={**words[1], "resume": str(stages[1] / "weights" / "last.pt")})
    resumed.train()
    assert sorted(resumed.seen) == [2, 3]
    for epoch, batches in resumed.seen.items():
        for found, expected in zip(batches, whole.seen[epoch], strict=True):
            assert found.keys() == expected.keys() >= {"img", "semantic_mask", "kd_pixels", "boundary_maps", "labeled"}
            assert all(torch.equal(found[key], expected[key]) for key in found)
    assert not torch.equal(whole.seen[0][0]["img"], whole.seen[1][0]["img"])
    other = Watched(overrides={**words[2], "seed": 1})
    other.train()
    moved = (weights(other) - weights(whole)).norm()
    assert (weights(resumed) - weights(whole)).norm() < 0.05 * moved


def test_batches_hold_what_the_processes_would_give(data: Path, teacher: Path, tmp_path: Path) -> None:
    """The same images in the same order, with fields of the same kind."""
    seen = []
    for loader in ("device", "ultralytics"):
        stage = tmp_path / loader / "student"
        segmentation_settings(**settings(data, teacher, loader=loader, jitter=0.0, symmetries=False)).write(stage)
        trainer = Watched(overrides=overrides(data, stage, epochs=2))
        trainer.train()
        seen.append(trainer.seen)
        row = read_results_csv(trainer.csv)[-1]
        assert all(np.isfinite(float(row[f"train/{name}"])) for name in ("ce", "dice", "boundary", "kd"))
        assert trainer.selftest.result["alive"] == ["boundary", "ce", "dice", "kd"]
    for epoch, batches in seen[0].items():
        for ours, theirs in zip(batches, seen[1][epoch], strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                assert value.dtype == theirs[key].dtype
                torch.testing.assert_close(value, theirs[key], rtol=0, atol=2e-5 if key == "boundary_maps" else 0)


def test_pictures_of_batches_are_drawn(data: Path, teacher: Path, tmp_path: Path) -> None:
    stage = tmp_path / "plots" / "student"
    segmentation_settings(**settings(data, teacher)).write(stage)
    SemanticStageTrainer(overrides=overrides(data, stage, epochs=1, plots=True)).train()
    assert (stage / "train_batch0.jpg").exists() and (stage / "labels.jpg").exists()


def test_teacher_and_student_share_what_is_decoded(data: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    alone, student = tmp_path / "train" / "teacher", tmp_path / "train" / "student"
    segmentation_settings(batches_per_epoch=1, loader="device").write(alone)
    segmentation_settings(**settings(data, teacher)).write(student)
    for stage in (alone, student, alone):
        SemanticStageTrainer(overrides=overrides(data, stage, epochs=1)).train()
    decoded = [line.split(" in ")[0] for line in capsys.readouterr().out.splitlines() if "decoded" in line]
    assert decoded == ["decoded 6 images", "decoded 4 images"]
