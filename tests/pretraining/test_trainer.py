"""The stage ``pretrain`` in real, tiny trainings: which files it reads, what it leaves, resume, what starts there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.utils.patches import torch_load

from dfssd.cli import main
from dfssd.config import DENSE, REGIONS
from dfssd.errors import UserError
from dfssd.pretraining import trainer as module
from dfssd.pretraining.images import PlainImages, write_images
from dfssd.pretraining.trainer import COLLAPSED, ObjectiveTrainer, trainer_of
from dfssd.reporting.run_files import read_csv
from dfssd.results.record import BoxRecord
from dfssd.trainers import stage as stage_module
from dfssd.trainers.checkpoints import finish_checkpoint, read_checkpoint
from dfssd.trainers.settings import PretrainSettings
from dfssd.trainers.stage import StageTrainer
from tests import configured, processes
from tests.conftest import NAMES, write_squares
from tests.tiny_detection import TINY
from tests.trainers import interrupted
from tests.trainers.test_captured_training import assert_same, trained
from tests.trainers.test_stages import overrides


def settings(method: str = DENSE, batches: int = 3, **changes: Any) -> PretrainSettings:
    return PretrainSettings(**vars(replace(configured.labels_alone(batches), **changes)), method=method)


def listed(images: list[Path], file: Path) -> Path:
    file.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    return file


@pytest.fixture
def data(squares: Path, tmp_path: Path) -> Path:
    """Description of the 16 training images, copied without their labels."""
    lists = []
    for part in ("train", "plain"):
        shutil.copytree(squares.parent / part / "images", tmp_path / part / "images")
        lists.append(listed(sorted((tmp_path / part / "images").glob("*.png")), tmp_path / f"{part}.txt"))
    write_images(tmp_path / "images.yaml", lists)
    return tmp_path / "images.yaml"


def stage_of(tmp_path: Path, **changes: Any) -> Path:
    stage = tmp_path / "run" / "pretrained_student"
    settings(**changes).write(stage)
    return stage


@pytest.mark.train
def test_images_alone_make_an_ordinary_checkpoint_that_nobody_takes_for_trained(data: Path, tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    trainer = ObjectiveTrainer(overrides=overrides(data, stage, epochs=3))
    seen: list[float] = []
    trainer.add_callback("on_train_batch_end", lambda t: seen.append(t.loss.item()))
    trainer.train()
    summary = json.loads(stage.with_name("pretrained_student.json").read_text(encoding="utf-8"))
    learned = summary["pretraining"]
    assert learned["method"] == DENSE and learned["images"] == 16
    assert summary["batches"] == summary["optimizer_steps"] == len(seen) == 9
    assert summary["val_score"] is None and summary["best_epoch"] is None
    losses = learned["losses"]
    assert list(losses) == ["where", "what"] and all(len(values) == 3 for values in losses.values())
    assert losses["where"][2] < losses["where"][0]
    assert len(learned["spread"]) == 3 and min(learned["spread"]) > COLLAPSED
    assert not list(tmp_path.rglob("*.cache"))  # Ultralytics writes one where it reads labels
    assert (
        not (stage / "weights" / "best.pt").exists() and read_checkpoint(stage / "weights" / "last.pt")["epoch"] == -1
    )

    finish_checkpoint(stage, tmp_path / "student.pt")
    network = YOLO(tmp_path / "student.pt")
    assert type(network.model).__name__ == "DetectionModel" and not set(network.names.values()) & set(NAMES)
    done = processes.run_without_dfssd(
        f"from ultralytics import YOLO\nYOLO({str(tmp_path / 'student.pt')!r})", tmp_path
    )
    assert done.returncode == 0, done.output[-2000:]


@pytest.mark.train
def test_regions_are_learned_as_boxes_of_one_class(data: Path, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, method=REGIONS)
    trainer = trainer_of(REGIONS)(overrides=overrides(data, stage, epochs=3))
    trainer.train()
    boxes = [label["bboxes"] for label in trainer.train_loader.dataset.labels]
    assert len(boxes) == 16 and sum(map(len, boxes)) >= 24  # two squares in each image
    learned = json.loads(stage.with_name("pretrained_student.json").read_text(encoding="utf-8"))["pretraining"]
    assert learned["method"] == REGIONS and list(learned["losses"]) == ["box_loss", "cls_loss", "dfl_loss"]
    assert not list(tmp_path.rglob("*.cache")) and trainer.data["names"].keys() == {0}
    finish_checkpoint(stage, tmp_path / "student.pt")
    assert YOLO(tmp_path / "student.pt").model.yaml["nc"] == 1


@pytest.mark.train
def test_images_without_any_region_are_refused(tmp_path: Path) -> None:
    images = []
    for number in range(3):
        images.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 64), (120, 120, 120)).save(images[-1])
    write_images(tmp_path / "images.yaml", [listed(images, tmp_path / "list.txt")])
    trainer = trainer_of(REGIONS)(overrides=overrides(tmp_path / "images.yaml", stage_of(tmp_path, method=REGIONS)))
    with pytest.raises(UserError, match=r"nothing stands out in any of 3 training images; use pretrain=dense"):
        trainer.train()


@pytest.mark.train
@pytest.mark.parametrize("method", [DENSE, REGIONS])
def test_goes_on_to_the_last_bit(data: Path, tmp_path: Path, monkeypatch, method: str) -> None:
    monkeypatch.setattr(stage_module, "LONGEST_LOSS", 0.0)  # as if an epoch took a minute
    stages = tmp_path / "train" / "whole", tmp_path / "train" / "stopped"
    for stage in stages:
        settings(method=method).write(stage)
        stops = [(1, 1), (2, 0)] if stage is stages[1] else ()
        interrupted.train(trainer_of(method), overrides(data, stage, epochs=3, mosaic=1.0), stops)
    interrupted.assert_same_training(*stages)


@pytest.mark.train
def test_captured_passes_leave_the_weights_of_eager_ones(data: Path, tmp_path: Path) -> None:
    results = []
    for capture in (False, True):
        stage = stage_of(tmp_path / str(capture), batches=4)
        results.append(trained(ObjectiveTrainer(overrides=overrides(data, stage)), capture=capture))
    assert_same(*results)
    assert results[1][2] > 0


@pytest.mark.train
def test_device_loader_makes_the_views_as_well(data: Path, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, loader="device", batches=2)
    trainer = ObjectiveTrainer(overrides=overrides(data, stage, epochs=1))
    trainer.train()
    assert type(trainer.train_loader).__name__ == "DeviceLoader" and trainer.batches_done == 2


@pytest.mark.train
def test_features_of_another_network_can_be_learned(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The stage needs no more of a foundation model than features on the grid."""

    class Grid(torch.nn.Conv2d):
        def __init__(self, wanted: str):
            super().__init__(3, 8, 16, 16)
            self.width = 8

    monkeypatch.setattr(module, "TimmFeatures", Grid)
    stage = stage_of(tmp_path, method="some-model")
    trainer = ObjectiveTrainer(overrides=overrides(data, stage, epochs=3))
    trainer.train()
    losses = json.loads(stage.with_name("pretrained_student.json").read_text())["pretraining"]["losses"]
    assert losses["features"][2] < losses["features"][0]
    assert sum(p.numel() for p in trainer.ema.ema.parameters()) < sum(
        p.numel() for p in [*trainer.wrapped.parameters(), *Grid("").parameters()]
    )


@pytest.mark.train
def test_features_that_have_become_alike_are_told(data: Path, tmp_path: Path, capsys: Any) -> None:
    def silence(trainer: ObjectiveTrainer) -> None:
        for parameter in trainer.wrapped.student_model.parameters():
            parameter.data.zero_()

    stage = stage_of(tmp_path, batches=1)
    trainer = ObjectiveTrainer(overrides=overrides(data, stage, epochs=1))
    trainer.add_callback("on_train_start", silence)
    trainer.train()
    assert trainer.wrapped.spreads == [0, 0, 0]
    assert "the features of all places look alike (spread 0.0000)" in "".join(capsys.readouterr())


FAST = ["imgsz=64", "batch=8", "nbs=8", "device=cpu", "workers=0", "plots=false", "amp=false", "optimizer=AdamW"]
SHORT = [*FAST, f"student={TINY}", "epochs=1", "warmup_epochs=0", "pretrain=dense", "val_every=1"]


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset YAML with 6 labeled, 10 unlabeled, 4 val and 4 test images."""
    return write_squares(tmp_path_factory.mktemp("plates"), train=6, val=4, test=4, plain=10)


def run(plates: Path, name: str, *words: str) -> Path:
    folder = plates.parent
    where = [f"data={plates}", f"project={folder / 'runs'}", f"data_dir={folder / 'd'}", f"name={name}"]
    assert main([*where, *words]) == 0
    return folder / "runs" / name


@pytest.fixture(scope="module")
def finished(plates: Path) -> Iterator[tuple[Path, dict[str, list[str]]]]:
    """A run of teacher and baseline, and the images that its stage ``pretrain`` has opened, by the library that did."""
    opened: list[str] = []
    patch = pytest.MonkeyPatch()
    load = PlainImages.load_image

    def watched(self: Any, index: int, *args: Any, **kwargs: Any) -> Any:
        opened.append(self.im_files[index])
        return load(self, index, *args, **kwargs)

    patch.setattr(PlainImages, "load_image", watched)
    folder = run(
        plates, "first", "recipe=baseline", f"teacher={TINY}", "teacher_epochs=1", "pretrain_batches=4", *SHORT
    )
    yield folder, {"opened": opened}
    patch.undo()


@pytest.mark.train
def test_run_learns_from_all_training_images_and_no_others(finished: tuple[Path, dict[str, list[str]]]) -> None:
    folder, seen = finished
    parts = {
        part: set((folder / "splits" / f"{part}.txt").read_text().split("\n")) - {""}
        for part in ("train_labeled", "train_unlabeled", "val", "test")
    }
    assert set(seen["opened"]) == parts["train_labeled"] | parts["train_unlabeled"]
    assert not set(seen["opened"]) & (parts["val"] | parts["test"])
    record = BoxRecord.read(folder / "results.json")
    assert [stage.name for stage in record.stages][:3] == ["prepare", "pretrain", "teacher"]
    assert {role: learned.images for role, learned in record.pretraining.items()} == {"student": 16, "teacher": 16}
    assert {"pretrained_student", "pretrained_teacher", "teacher", "baseline", "baseline_scratch"} == set(
        record.training
    )
    assert {record.training[f"pretrained_{role}"].batches for role in ("student", "teacher")} == {4}
    assert record.training["baseline"].batches == record.training["baseline_scratch"].batches
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "| baseline from scratch |" in report and "16 training images without any label (`pretrain=dense`)" in report


@pytest.mark.train
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_trainings_start_from_these_weights_bit_by_bit(finished: tuple[Path, dict], role: str) -> None:
    folder = finished[0]
    file = folder / "weights" / f"pretrained_{role}.pt"
    stage = folder.parent / f"look-{role}"
    configured.labels_alone(1).write(stage)
    trainer = StageTrainer(overrides=overrides(folder / "splits" / "data.yaml", stage, model=str(file)))
    trainer.setup_model()
    saved, own = torch_load(file, map_location="cpu")["model"].state_dict(), trainer.model.state_dict()
    same = [name for name in own if torch.equal(own[name].to(saved[name].dtype), saved[name])]
    last = len(trainer.model.model) - 1
    assert {name for name in own if not name.startswith(f"model.{last}.")} <= set(same)
    started = read_csv(folder / "train" / ("teacher" if role == "teacher" else "baseline") / "results.csv")
    assert started
    arguments = (folder / "train" / ("teacher" if role == "teacher" else "baseline") / "args.yaml").read_text()
    assert f"model: {file}" in arguments
    assert f"model: {TINY}" in (folder / "train" / "baseline_scratch" / "args.yaml").read_text()


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_baseline_of_another_run_brings_the_student_that_it_began_with(
    plates: Path, finished: tuple[Path, dict]
) -> None:
    first = finished[0]
    teacher = first / "weights" / "teacher.pt"
    words = [f"teacher={teacher}", f"split={first / 'splits'}", f"baseline={first}", "pretrain_batches=4"]
    folder = run(plates, "second", *words, "student_training=ultralytics", *SHORT)
    record = BoxRecord.read(folder / "results.json")
    for name in ("pretrained_student", "baseline", "baseline_scratch"):
        weights = [(run / "weights" / f"{name}.pt").read_bytes() for run in (first, folder)]
        assert weights[0] == weights[1] and record.training[name].taken_from == "first"
    assert set(record.pretraining) == {"student"} and not (folder / "weights" / "pretrained_teacher.pt").exists()
    arguments = (folder / "train" / "student" / "args.yaml").read_text()
    assert f"model: {folder / 'weights' / 'pretrained_student.pt'}" in arguments


@pytest.mark.train
def test_baseline_of_a_run_without_pretraining_is_the_one_from_scratch(plates: Path) -> None:
    words = ["recipe=baseline", "teacher=none", *SHORT]
    first = run(plates, "plain", *[word for word in words if not word.startswith("pretrain")])
    folder = run(plates, "third", *words, f"split={first / 'splits'}", f"baseline={first}", "pretrain_batches=2")
    record = BoxRecord.read(folder / "results.json")
    assert (
        record.training["baseline_scratch"].taken_from == "plain" and not (folder / "train/baseline_scratch").exists()
    )
    files = [first / "weights" / "baseline.pt", folder / "weights" / "baseline_scratch.pt"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert record.training["baseline"].taken_from is None and set(record.test) == {"baseline", "baseline_scratch"}
    assert [pair.reference for pair in record.differences.pairs] == ["baseline_scratch"]


@pytest.mark.train
def test_baseline_that_began_elsewhere_is_refused(plates: Path, finished: tuple[Path, dict], capsys: Any) -> None:
    first = finished[0]
    words = [f"data={plates}", f"project={plates.parent / 'runs'}", f"data_dir={plates.parent / 'd'}", "name=third"]
    words += [f"teacher={first / 'weights' / 'teacher.pt'}", f"split={first / 'splits'}", f"baseline={first}"]
    assert main([*words, *[word for word in SHORT if not word.startswith("pretrain")]]) == 2
    assert "it differs in pretrain (dense there)" in "".join(capsys.readouterr())
