"""Which loader a training gets, and trainings whose views are made on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset

from dfssd.detection.trainer import StudentTrainer
from dfssd.errors import UserError
from dfssd.loading.loader import DeviceLoader
from dfssd.loading.store import release_stores
from dfssd.trainers.mixed_data import MixedDataset, SeededLoader, build_loader
from dfssd.trainers.sampler import MixedSampler
from dfssd.trainers.stage import StageTrainer
from tests import configured
from tests.conftest import NAMES
from tests.trainers.test_stages import overrides, student_settings

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def no_store_stays():
    yield
    release_stores()


@pytest.fixture
def images(squares: Path) -> MixedDataset:
    labeled = YOLODataset(
        img_path=str(squares.parent / "train" / "images"),
        imgsz=64,
        hyp=get_cfg(),
        data={"names": dict(enumerate(NAMES)), "channels": 3},
        task="detect",
    )
    return MixedDataset(labeled)


def built(images: MixedDataset, kind: str, device: torch.device) -> Any:
    sampler = MixedSampler(8, 0, labeled_per_batch=4, unlabeled_per_batch=0, batches=2)
    return build_loader(images, sampler, kind, batch=4, args=get_cfg(overrides={"workers": 0}), device=device)


@pytest.mark.parametrize(
    ("kind", "device", "expected"),
    [
        ("auto", CPU, SeededLoader),
        ("ultralytics", CPU, SeededLoader),
        ("device", CPU, DeviceLoader),
        ("auto", ELSEWHERE, DeviceLoader),
        ("ultralytics", ELSEWHERE, SeededLoader),
    ],
)
def test_the_loader_follows_key_and_device(
    images: MixedDataset, monkeypatch: pytest.MonkeyPatch, kind: str, device: torch.device, expected: type
) -> None:
    if device is ELSEWHERE:  # it has no memory, nor random numbers
        monkeypatch.setattr(images, "device_views", lambda args, device: None)
    assert type(built(images, kind, device)) is expected


def test_what_the_device_cannot_do_is_refused_or_told(images: MixedDataset, capsys) -> None:
    assert isinstance(built(images, "device", CPU), DeviceLoader)
    images.datasets[0].labels[1]["segments"] = [np.zeros((4, 2), np.float32)]
    with pytest.raises(UserError, match=r"^loader=device: labels have outlines; use loader=auto$"):
        built(images, "device", CPU)
    capsys.readouterr()
    assert isinstance(built(images, "auto", ELSEWHERE), SeededLoader)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "loader=" in line]
    assert line == "loader=auto: Ultralytics' processes make the views, since labels have outlines"
    built(images, "auto", CPU)
    assert "loader=" not in capsys.readouterr().out, "on a CPU that is the normal case"


class Watched(StudentTrainer):
    """Keeps the images of all batches, and stops in the middle of an epoch if told so."""

    stop_in: int | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seen: dict[int, list[Tensor]] = {}
        self.weak: list[Tensor] = []

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.epoch == self.stop_in and len(self.seen.get(self.epoch, ())) == 1:
            raise InterruptedError
        assert isinstance(self.train_loader, DeviceLoader)
        self.seen.setdefault(self.epoch, []).append(batch["img"].clone())
        self.weak.append(batch["weak_img"].clone())
        return super().preprocess_batch(batch)


@pytest.fixture
def stages(pseudo, teacher_file: Path, tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name / "student" for name in ("whole", "resumed")]
    for folder in folders:
        student_settings(pseudo, teacher_file, loader="device", strong_view=0.5, mode="both").write(folder)
    return folders


@pytest.mark.train
def test_a_training_on_the_device_resumes_with_the_views_that_it_would_have_had(squares: Path, stages) -> None:
    words = [overrides(squares, stage, epochs=4, close_mosaic=1, mosaic=1.0, mixup=0.3, degrees=5) for stage in stages]
    whole = Watched(overrides=words[0])
    whole.train()
    assert [len(whole.seen[epoch]) for epoch in range(4)] == [3] * 4
    assert all(weak.shape == (2, 3, 64, 64) for weak in whole.weak)
    assert whole.train_loader.dataset.mosaic_closed

    killed = Watched(overrides=words[1])
    killed.stop_in = 2
    with pytest.raises(InterruptedError):
        killed.train()
    resumed = Watched(overrides={**words[1], "resume": str(stages[1] / "weights" / "last.pt")})
    resumed.train()
    assert sorted(resumed.seen) == [2, 3]
    for epoch, batches in {**killed.seen, **resumed.seen}.items():
        assert len(batches) == 3 and all(map(torch.equal, batches, whole.seen[epoch]))
    assert not torch.equal(whole.seen[0][0], whole.seen[1][0])


@pytest.mark.train
def test_teacher_and_student_share_what_is_decoded(squares: Path, stages, tmp_path: Path, capsys) -> None:
    teacher = tmp_path / "train" / "teacher"
    configured.labels_alone(1, loader="device").write(teacher)
    StageTrainer(overrides=overrides(squares, teacher, epochs=1)).train()
    Watched(overrides=overrides(squares, stages[0], epochs=1)).train()
    StageTrainer(overrides=overrides(squares, teacher, epochs=1)).train()
    decoded = [line for line in capsys.readouterr().out.splitlines() if "decoded" in line]
    assert [line.split(" in ")[0] for line in decoded] == ["decoded 8 images"] * 2
    assert "of 16 in all" in decoded[1]


@pytest.mark.train
def test_batches_are_drawn_before_the_first_epoch(squares: Path, stages) -> None:
    """Ultralytics draws pictures of batches and of the labels where plots are on."""
    trainer = Watched(overrides=overrides(squares, stages[0], epochs=1, plots=True))
    trainer.train()
    assert (stages[0] / "train_batch0.jpg").exists() and (stages[0] / "labels.jpg").exists()
