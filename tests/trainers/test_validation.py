"""Validation in a training: data read once for all networks, numbers as Ultralytics computes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator

from dfssd.trainers import validation_data
from dfssd.trainers.stage import StageTrainer
from dfssd.trainers.validation_data import KeptLoader, forget, home_of
from dfssd.trainers.validator import StageValidator, to_host
from tests import configured
from tests.conftest import NAMES, write_images
from tests.trainers.test_stages import overrides


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A data set whose ten validation images have four sizes."""
    train = write_images(tmp_path / "train", 4, seed=1)
    val = [
        path
        for seed, size in enumerate((48, 64, 96))
        for path in write_images(tmp_path / "val", 2, seed=seed, size=size)
    ]
    wide = [tmp_path / "val" / "images" / f"wide {i}.png" for i in range(4)]  # without labels
    for file in wide:
        cv2.imwrite(str(file), np.full((20, 96, 3), 128, np.uint8))
    for name, images in (("train", train), ("val", [*val, *wide])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{path}\n" for path in images))
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"path": str(tmp_path), "train": "train.txt", "val": "val.txt", "names": NAMES}))
    return data


def trainer(data: Path, stage: Path, **changes: Any) -> StageTrainer:
    configured.labels_alone(1).write(stage)
    made = StageTrainer(overrides=overrides(data, stage, epochs=2, batch=2, **changes))
    made.setup_model()
    return made


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return repr(a) == repr(b)


def test_batches_are_those_of_ultralytics_and_come_from_memory(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    made = trainer(shapes, tmp_path / "train" / "baseline")
    expected = list(DetectionTrainer.get_dataloader(made, made.data["val"], 4, mode="val"))
    loader = made.get_dataloader(made.data["val"], 4, mode="val")
    first = list(loader)
    monkeypatch.setattr(cv2, "imread", None)
    monkeypatch.setattr(type(loader.dataset), "__getitem__", None)
    again = list(loader)
    other = list(trainer(shapes, tmp_path / "train" / "student").get_dataloader(made.data["val"], 4, mode="val"))
    assert len(loader) == len(expected) == 3
    for found in (first, again, other):
        for batch, own in zip(expected, found, strict=True):
            assert batch.keys() == own.keys() and all(equal(batch[name], own[name]) for name in batch)
    assert len({tuple(batch["img"].shape[2:]) for batch in expected}) == 2, "batches of more than one shape"


@pytest.mark.parametrize("change", ["label", "image list", "size", "batch", "classes"])
def test_other_data_are_read(shapes: Path, tmp_path: Path, change: str) -> None:
    made = trainer(shapes, tmp_path / "train" / "baseline")
    before = list(made.get_dataloader(made.data["val"], 4, mode="val"))
    batch, changes = 4, {}
    if change == "label":
        label = tmp_path / "val" / "labels" / "im 0_0.txt"
        label.write_text("1 0.5 0.5 0.25 0.25\n")
    elif change == "image list":
        file = tmp_path / "val.txt"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    elif change == "size":
        changes = {"imgsz": 96}
    elif change == "batch":
        batch = 3
    else:
        tree = yaml.safe_load(shapes.read_text())
        shapes.write_text(yaml.safe_dump({**tree, "names": ["other", "names"]}))
    other = trainer(shapes, tmp_path / "train" / "student", **changes)
    loader = other.get_dataloader(other.data["val"], batch, mode="val")
    read: list[int] = []
    get = type(loader.dataset).__getitem__

    def note(dataset: Any, i: int) -> Any:
        read.append(i)
        return get(dataset, i)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(loader.dataset), "__getitem__", note)
        after = list(loader)
    assert len(read) == len(loader.dataset) and len(after) == len(loader)
    assert len(validation_data._kept) == 1, "the memory of one data set is used"
    assert change == "classes" or [str(b["img"].shape) + str(b["cls"]) for b in before] != [
        str(b["img"].shape) + str(b["cls"]) for b in after
    ]


def test_nobody_sees_what_a_validation_does_to_its_batch(shapes: Path, tmp_path: Path) -> None:
    made = trainer(shapes, tmp_path / "train" / "baseline")
    loader = made.get_dataloader(made.data["val"], 4, mode="val")
    for _ in range(2):
        for batch in loader:
            assert batch["img"].dtype == torch.uint8
            batch["img"] = batch["img"].float() / 255
            del batch["cls"]


def test_pass_that_is_broken_off_keeps_nothing(shapes: Path, tmp_path: Path) -> None:
    made = trainer(shapes, tmp_path / "train" / "baseline")
    loader = made.get_dataloader(made.data["val"], 4, mode="val")
    next(iter(loader))
    assert not validation_data._kept


def test_what_does_not_fit_is_read_each_time_and_said_once(shapes: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    made = trainer(shapes, tmp_path / "train" / "baseline")
    monkeypatch.setattr(validation_data, "free_on", lambda device: 1000)
    loader = made.get_dataloader(made.data["val"], 4, mode="val")
    with caplog.at_level("INFO", logger="dfssd"):
        passes = [list(loader) for _ in range(3)]
    assert not validation_data._kept and all(len(batches) == 3 for batches in passes)
    assert sum("are read anew each time" in record.message for record in caplog.records) == 1


def test_home_of_the_batches(monkeypatch) -> None:
    cuda, host = torch.device("cuda", 0), torch.device("cpu")
    free = {"cuda": 400, "cpu": 4000}
    monkeypatch.setattr(validation_data, "free_on", lambda device: free[device.type])
    assert [home_of(size, cuda) for size in (100, 101, 1000, 1001)] == [cuda, host, host, None]
    assert [home_of(size, host) for size in (100, 1000, 1001)] == [host, host, None]


def test_processes_of_several_gpus_share_the_memory_of_the_machine(monkeypatch) -> None:
    host = torch.device("cpu")
    whole = validation_data.free_on(host)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert validation_data.free_on(host) < whole / 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_stay_on_the_device(shapes: Path, tmp_path: Path) -> None:
    made = trainer(shapes, tmp_path / "train" / "baseline", device="0")
    loader = made.get_dataloader(made.data["val"], 4, mode="val")
    for _ in range(2):
        assert all(batch["img"].device.type == "cuda" for batch in loader)


def predictions(seed: int, images: int = 5) -> tuple[list[dict[str, torch.Tensor]], dict[str, Any]]:
    """Boxes near the true ones of a batch, one image without true boxes, one without predictions."""
    random_numbers = np.random.default_rng(seed)
    preds, rows = [], []
    for image in range(images):
        true = 0 if image == 1 else int(random_numbers.integers(1, 7))
        boxes = random_numbers.uniform(0.1, 0.5, (true, 4)).astype(np.float32)
        rows += [(image, int(random_numbers.integers(0, 2)), *box) for box in boxes]
        count = 0 if image == 2 else 40
        source = boxes[random_numbers.integers(0, true, count)] if true else np.full((count, 4), 0.3, np.float32)
        center, size = source[:, :2] * 64, source[:, 2:] * 64
        corners = np.concatenate([center - size / 2, center + size / 2], 1) + random_numbers.normal(0, 2, (count, 4))
        scores = np.sort(random_numbers.uniform(0, 1, count))[::-1].copy()
        found = torch.from_numpy(corners.astype(np.float32))
        classes = torch.from_numpy(random_numbers.integers(0, 2, count).astype(np.float32))
        conf = torch.from_numpy(scores.astype(np.float32))
        preds.append({"bboxes": found, "conf": conf, "cls": classes, "extra": torch.zeros(count, 0)})
    table = torch.tensor(rows, dtype=torch.float32)
    batch = {
        "img": torch.zeros(images, 3, 64, 64),
        "batch_idx": table[:, 0],
        "cls": table[:, 1:2],
        "bboxes": table[:, 2:],
        "ori_shape": [(64, 64)] * images,
        "ratio_pad": [None] * images,
        "im_file": [f"{seed} {image}.png" for image in range(images)],
    }
    return preds, batch


def metrics_of(kind: type[DetectionValidator], tmp_path: Path, device: str) -> dict[str, float]:
    validator = kind(save_dir=tmp_path, args={"plots": False, "task": "detect"})
    validator.device = torch.device("cpu")
    validator.data, validator.dataloader = {}, type("L", (), {"dataset": ()})()
    validator.init_metrics(type("M", (), {"names": dict(enumerate(NAMES))})())
    validator.device = torch.device(device)
    for seed in range(3):
        preds, batch = predictions(seed)
        validator.update_metrics([dict(pred) for pred in preds], batch)
    assert validator.device.type == device
    found: dict[str, float] = validator.get_stats()
    return found


def test_metrics_computed_on_the_host_are_those_of_ultralytics(tmp_path: Path) -> None:
    """Without a GPU the way over the host is taken all the same: the validator is told that its device is one."""
    expected = metrics_of(DetectionValidator, tmp_path, "cpu")
    assert metrics_of(StageValidator, tmp_path, "cuda") == expected == metrics_of(StageValidator, tmp_path, "cpu")
    assert 0.05 < expected["metrics/mAP50-95(B)"] < 0.95


def test_device_is_put_back_after_an_error(tmp_path: Path) -> None:
    validator = StageValidator(save_dir=tmp_path, args={"plots": False, "task": "detect"})
    validator.device, validator.seen = torch.device("cuda"), 0
    preds, _ = predictions(0)
    with pytest.raises(KeyError):
        validator.update_metrics(preds, {})
    assert validator.device.type == "cuda"


def test_predictions_are_moved_as_they_are() -> None:
    preds, _ = predictions(0)
    for pred, moved in zip(preds, to_host(preds), strict=True):
        assert pred.keys() == moved.keys() and all(torch.equal(pred[name], moved[name]) for name in pred)


@pytest.mark.train
def test_training_has_the_scores_of_ultralytics_validation(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    """A whole training with our loader and validator, and one with Ultralytics' own."""
    found = []
    for ours in (True, False):
        stage = tmp_path / "train" / str(ours)
        with pytest.MonkeyPatch.context() as patch:
            if not ours:
                patch.setattr(StageTrainer, "get_validator", DetectionTrainer.get_validator)
                patch.setattr(KeptLoader, "__iter__", lambda self: iter(self.loader))
            configured.labels_alone(2).write(stage)
            made = StageTrainer(overrides=overrides(shapes, stage, epochs=3, batch=2, plots=not ours))
            rows: list[dict[str, float]] = []
            made.add_callback("on_fit_epoch_end", lambda t, rows=rows: rows.append(copy(t.metrics)))
            made.train()
        found.append(rows[:3])
        assert type(made.validator) is (StageValidator if ours else DetectionValidator)
    assert found[0] == found[1] and found[0][-1]["val/box_loss"] > 0


@pytest.mark.train
def test_views_of_the_training_do_not_depend_on_validation(shapes: Path, tmp_path: Path) -> None:
    """Ultralytics draws a number from the generator of the views for each image it reads."""
    states: list[list[Any]] = []
    for _ in range(2):  # the second training finds the images in memory
        stage = tmp_path / "train" / f"{len(states)}"
        configured.labels_alone(1).write(stage)
        made = StageTrainer(overrides=overrides(shapes, stage, epochs=2, batch=2))
        own: list[Any] = []
        made.add_callback("on_train_batch_start", lambda trainer, own=own: own.append(random.getstate()))
        made.train()
        states.append(own)
    assert len(states[0]) == 2 and states[0] == states[1]
    assert states[0][0] != states[0][1]
