"""Trainings of seconds: what a teacher and unlabeled images give, what a checkpoint holds, what is best."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook
from ultralytics import YOLO
from ultralytics.utils.patches import torch_load

from dfssd.errors import UserError
from dfssd.evaluation.settings import EvalSettings
from dfssd.segmentation.criterion import BatchLoss
from dfssd.segmentation.evaluate import evaluate_masks, time_networks
from dfssd.segmentation.metrics import SegmentationScores, confusion_matrix, segmentation_scores
from dfssd.segmentation.mixing import draw, paste
from dfssd.segmentation.model import MFFMetalModel, build_model, load_semantic
from dfssd.segmentation.selftest import SegmentationSelfTest
from dfssd.segmentation.teacher import SegmentationTeacher
from dfssd.segmentation.trainer import SemanticStageTrainer
from dfssd.segmentation.validator import MaskMetrics, native_classes
from dfssd.trainers.checkpoints import finish_checkpoint
from dfssd.trainers.results_csv import read_results_csv
from dfssd.trainers.settings import SegmentationSettings
from tests.configured import segmentation_loss, segmentation_settings
from tests.segmentation.material import NEU_NAMES, mask_data
from tests.segmentation.test_model import checkpoint, lively
from tests.trainers import interrupted


def overrides(data: Path, stage: Path, **changes) -> dict:
    return {
        "model": "mffmetal-6",
        "data": str(data),
        "task": "semantic",
        "mode": "train",
        "project": str(stage.parent),
        "name": stage.name,
        "save_dir": str(stage),
        "exist_ok": True,
        "epochs": 2,
        "batch": 4,
        "imgsz": 40,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "amp": False,
        "optimizer": "Adam",
        "lr0": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "nbs": 4,
        "warmup_epochs": 0,
        **changes,
    }


def train(data: Path, stage: Path, settings: dict | None = None, **changes) -> SemanticStageTrainer:
    segmentation_settings(**{"batches_per_epoch": 2, "selftest_steps": 2, **(settings or {})}).write(stage)
    trainer = SemanticStageTrainer(overrides=overrides(data, stage, **changes))
    trainer.train()
    return trainer


def on_val(data: Path, imgsz: int) -> EvalSettings:
    return EvalSettings(data, "val", imgsz, batch=2, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mask_data(tmp_path_factory.mktemp("data"), side=40)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    model = lively(build_model("mffmetal-12", 4, NEU_NAMES))
    return checkpoint(tmp_path_factory.mktemp("teacher") / "teacher.pt", model)


@pytest.fixture(scope="module")
def taught(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> SemanticStageTrainer:
    stage = tmp_path_factory.mktemp("run") / "train" / "student"
    unlabeled = str(data.parent / "unlabeled.txt")
    settings = {"teacher": str(teacher), "kd": 15.0, "unlabeled": unlabeled, "unlabeled_share": 0.5}
    return train(data, stage, settings)


def summary(trainer: SemanticStageTrainer) -> dict:
    return json.loads(trainer.summary_file.read_text(encoding="utf-8"))


def test_settings_survive_the_file(tmp_path: Path) -> None:
    settings = segmentation_settings(batches_per_epoch=3, lr_steps=(0.5, 0.75), tau=2.0)
    settings.write(tmp_path / "student")
    assert SegmentationSettings.read(tmp_path / "student") == settings


@pytest.mark.train
def test_native_size_stays(taught: SemanticStageTrainer) -> None:
    assert taught.args.imgsz == 40
    assert next(iter(taught.train_loader))["img"].shape == (4, 3, 40, 40)
    assert next(iter(taught.test_loader))["img"].shape[2:] == (40, 40)


@pytest.mark.train
def test_every_loss_teaches_and_is_recorded(taught: SemanticStageTrainer) -> None:
    found = summary(taught)
    assert found["selftest"]["alive"] == ["boundary", "ce", "dice", "kd"]
    assert found["selftest"]["teacher_unchanged"] is True
    assert set(found["selftest"]["grad_share"]) == {"ce", "dice", "boundary", "kd"}
    assert len(found["losses"]["kd"]["by_epoch"]) == 2 and found["losses"]["kd"]["by_epoch"][0] > 0
    assert found["batches"] == 4 and found["optimizer"] == "Adam"
    row = read_results_csv(taught.csv)[0]
    assert float(row["val/ce"]) > 0 and not {"val/kd", "val/boundary"} & set(row), "validation has neither"


@pytest.mark.train
def test_no_teacher_in_the_checkpoints(taught: SemanticStageTrainer) -> None:
    for name in ("last", "best"):
        file = taught.wdir / f"{name}.pt"
        content = torch_load(file, map_location="cpu")
        model = content["model"] or content["ema"]
        assert type(model).__name__ == "MFFMetalModel" and getattr(model, "criterion", None) is None
        assert sum(p.numel() for p in model.parameters()) == summary(taught)["parameters"]
        assert not any("teacher" in key for key in model.state_dict())
        assert file.stat().st_size < 1_500_000
    assert {id(p) for g in taught.optimizer.param_groups for p in g["params"]}.isdisjoint(
        id(p) for p in taught.teacher.model.parameters()
    )


@pytest.mark.train
def test_the_plain_file_is_loaded_by_ultralytics(taught: SemanticStageTrainer, tmp_path: Path, data: Path) -> None:
    finish_checkpoint(taught.save_dir, tmp_path / "student.pt")
    result = YOLO(tmp_path / "student.pt").predict(next((data.parent / "images/val").iterdir()), verbose=False)[0]
    assert result.semantic_mask.data.shape == (40, 40)


@pytest.mark.train
def test_teacher_sees_weak_views_whole_and_the_student_strong_ones_in_pieces(
    data: Path, teacher: Path, tmp_path: Path
) -> None:
    """With the views and rectangles of a trainer put back by hand, its soft masks are those of the weak views."""
    stage = tmp_path / "train" / "student"
    own = {"teacher": str(teacher), "kd": 15.0, "unlabeled": str(data.parent / "unlabeled.txt"), "strong_view": 1.0}
    segmentation_settings(batches_per_epoch=2, unlabeled_share=0.5, cutmix=1.0, boundary=0.0, **own).write(stage)
    batches: list[tuple[dict, dict]] = []

    class Keeping(SemanticStageTrainer):
        def preprocess_batch(self, batch: dict) -> dict:
            before = {name: batch[name].clone() for name in ("img", "weak_img", "kd_pixels")}
            batches.append((before, super().preprocess_batch(batch)))
            return batches[-1][1]

    trainer = Keeping(overrides=overrides(data, stage, epochs=1))
    trainer.train()
    assert trainer.teacher is not None
    assert len(batches) == 2
    for number, (before, after) in enumerate(batches):
        rng = np.random.default_rng((trainer.args.seed, 0, 0, number))
        pasted = draw(rng, 2, (40, 40), 1.0)
        weak = torch.cat([before["img"][:2], before["weak_img"]]).float() / 255
        whole = {"img": before["img"].float() / 255, "kd_pixels": before["kd_pixels"]}
        expected = paste({**whole, "teacher_logits": trainer.teacher(weak)}, pasted)
        torch.testing.assert_close(after["teacher_logits"], expected["teacher_logits"], rtol=1e-4, atol=1e-4)
        assert torch.equal(after["img"], expected["img"]) and not torch.equal(after["img"][2:], whole["img"][2:])
        assert not torch.equal(after["img"][2:], weak[2:])


def batch_of(data: Path, teacher_logits: torch.Tensor | None = None) -> dict:
    mask = torch.from_numpy(np.stack([np.asarray(Image.open(data.parent / f"masks/train/{i}.png")) for i in (0, 1)]))
    mask = mask.int()
    mask[1] = 255
    kd_pixels = torch.ones(2, 40, 40, dtype=torch.bool)
    return {"semantic_mask": mask, "kd_pixels": kd_pixels, "teacher_logits": teacher_logits}


def test_unlabeled_pixels_give_distillation_and_nothing_else(data: Path) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 40, 40, requires_grad=True), torch.randn(2, 4, 40, 40)
    for weights, teaches in (({"ce": 1, "dice": 1, "kd": 0}, False), ({"ce": 0, "dice": 0, "kd": 1}, True)):
        loss, parts = BatchLoss(segmentation_loss(**weights, boundary=0))(logits, batch_of(data, target))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert bool(gradient[1].any()) is teaches and bool(gradient[0].any())
        assert loss == 2 * sum(parts.values()) and set(parts) == {"ce", "dice", "boundary", "kd"}
    without = batch_of(data, target)
    del without["kd_pixels"]
    (gradient,) = torch.autograd.grad(BatchLoss(segmentation_loss(**weights, boundary=0))(logits, without)[0], logits)
    assert not gradient[1].any()


def test_auxiliary_head_is_trained_as_by_ultralytics(data: Path) -> None:
    torch.manual_seed(0)
    main, aux = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 3, 3, requires_grad=True)
    loss, parts = BatchLoss(segmentation_loss(kd=0, boundary=0), auxiliary=True)((main, aux), batch_of(data))
    loss.backward()
    assert aux.grad.abs().sum() > 0 and parts["aux"] > 0
    _, parts = BatchLoss(segmentation_loss(kd=0, boundary=0), auxiliary=True)(main, batch_of(data))
    assert parts["aux"] == 0


def test_teacher_of_another_stride_answers_at_the_students_size(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "yolo.pt", build_model("yolo26n-sem.yaml", 4, NEU_NAMES))
    teacher = SegmentationTeacher(file, dict(enumerate(NEU_NAMES)), torch.device("cpu"))
    logits = teacher(torch.rand(1, 3, 40, 40))
    assert logits.shape == (1, 4, 40, 40) and not logits.requires_grad and not teacher.model.training
    assert teacher.unchanged()
    next(iter(teacher.model.parameters()))[0, 0, 0, 0] += 1e-4
    assert not teacher.unchanged()


@pytest.mark.parametrize(
    ("names", "message"),
    [(dict(enumerate("abc")), "4 classes, but the data 3"), ({**dict(enumerate(NEU_NAMES)), 3: "pores"}, "scratches")],
)
def test_teacher_of_other_classes(teacher: Path, names: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SegmentationTeacher(teacher, names, torch.device("cpu"))


def test_self_test_stops_a_loss_that_says_nothing(data: Path) -> None:
    """A student that is the teacher leaves gradients of rounding."""
    criterion = BatchLoss(segmentation_loss(ce=1, dice=0, boundary=0, kd=1))
    watch = SegmentationSelfTest(criterion, None, steps=2)
    logits = torch.randn(2, 4, 40, 40, requires_grad=True)
    batch = batch_of(data, logits.detach())
    criterion(logits, batch)
    watch.check_batch(0)
    criterion(logits, batch)
    with pytest.raises(UserError, match="self-test: kd gave the student no gradient in the first 2 batches"):
        watch.check_batch(0)


def test_self_test_stops_a_detached_student(data: Path) -> None:
    criterion = BatchLoss(segmentation_loss(kd=0, boundary=0))
    watch = SegmentationSelfTest(criterion, None, steps=1)
    criterion(torch.randn(2, 4, 40, 40), batch_of(data))
    with pytest.raises(UserError, match="no gradient"):
        watch.check_batch(0)


def test_self_test_stops_what_is_not_finite(data: Path) -> None:
    criterion = BatchLoss(segmentation_loss(kd=0, boundary=0))
    watch = SegmentationSelfTest(criterion, None, steps=1)
    criterion(torch.full((2, 4, 40, 40), float("nan"), requires_grad=True), batch_of(data))
    with pytest.raises(UserError, match="not finite in epoch 3; lower lr0"):
        watch.check_batch(2)


def test_self_test_waits_for_a_defect(data: Path) -> None:
    """Without a border in the batch the boundary loss is 0, and rightly so."""
    criterion = BatchLoss(segmentation_loss(kd=0))
    watch = SegmentationSelfTest(criterion, None, steps=1)
    batch = {**batch_of(data), "boundary_maps": torch.zeros(2, 3, 40, 40)}
    criterion(torch.randn(2, 4, 40, 40, requires_grad=True), batch)
    watch.check_batch(0)
    assert watch.result["alive"] == ["ce", "dice"] and criterion.probe
    batch["boundary_maps"] += 1
    criterion(torch.randn(2, 4, 40, 40, requires_grad=True), batch)
    watch.check_batch(0)
    assert watch.result["alive"] == ["boundary", "ce", "dice"] and not criterion.probe


@pytest.mark.train
def test_changed_teacher_leaves_no_checkpoint(data: Path, teacher: Path, tmp_path: Path) -> None:
    stage = tmp_path / "train" / "student"
    segmentation_settings(batches_per_epoch=2, teacher=str(teacher), kd=15.0).write(stage)
    trainer = SemanticStageTrainer(overrides=overrides(data, stage))

    def spoil(t: SemanticStageTrainer) -> None:
        next(iter(t.teacher.model.parameters()))[0, 0, 0, 0] += 1e-4

    trainer.add_callback("on_train_epoch_end", spoil)
    with pytest.raises(UserError, match="teacher's weights changed"):
        trainer.train()
    assert not (stage / "weights" / "last.pt").exists()


@pytest.mark.train
def test_best_is_the_epoch_with_the_best_defects(data: Path, tmp_path: Path, monkeypatch) -> None:
    """The mean over all classes and the accuracy are best in other epochs."""
    figures = iter([(0.2, 0.9, 0.1), (0.5, 0.3, 0.2), (0.3, 0.4, 0.9), (0.5, 0.3, 0.2)])

    def scores(matrix: np.ndarray) -> SegmentationScores:
        if not matrix.any():
            return segmentation_scores(matrix)
        fg, every, accuracy = next(figures)
        return SegmentationScores((0.9, fg, fg, fg), fg, every, accuracy)

    monkeypatch.setattr("dfssd.segmentation.validator.segmentation_scores", scores)
    trainer = train(data, tmp_path / "train" / "alone", {"boundary": 0.0}, epochs=3)
    rows = read_results_csv(trainer.csv)
    assert [float(row["metrics/mIoU_fg"]) for row in rows] == [0.2, 0.5, 0.3]
    assert [float(row["metrics/mIoU"]) for row in rows] == [0.9, 0.3, 0.4]
    assert float(rows[0]["metrics/IoU(scratches)"]) == 0.2
    best = torch_load(trainer.best, map_location="cpu")
    assert best["train_metrics"]["metrics/mIoU_fg"] == trainer.best_fitness == 0.5
    assert summary(trainer)["best_epoch"] == 2 and summary(trainer)["val_score"] == 0.5


@pytest.mark.train
def test_trains_in_bf16_on_a_cpu_with_plots(data: Path, teacher: Path, tmp_path: Path) -> None:
    settings = {"teacher": str(teacher), "kd": 15.0, "cpu_bf16": True}
    trainer = train(data, tmp_path / "train" / "half", settings, epochs=1, plots=True)
    row = read_results_csv(trainer.csv)[0]
    assert all(np.isfinite(float(row[f"train/{name}"])) for name in ("ce", "dice", "boundary", "kd"))
    for name in ("train_batch0.jpg", "labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png", "results.png"):
        assert (trainer.save_dir / name).exists(), name


@pytest.mark.train
def test_bf16_on_a_cpu_teaches_dilated_convolutions_as_fp32_does(tmp_path: Path) -> None:
    """With the channels innermost their gradients were off by half, or NaN (30 channels, maps above 25 px)."""
    data = mask_data(tmp_path, side=96)
    moves: list[dict[str, torch.Tensor]] = []
    for bf16 in (False, True):
        stage = tmp_path / "train" / f"bf16_{bf16}"
        segmentation_settings(batches_per_epoch=1, selftest_steps=1, cpu_bf16=bf16).write(stage)
        changes = {"model": "mffmetal-30", "imgsz": 96, "epochs": 1, "optimizer": "SGD", "momentum": 0.0, "lr0": 0.01}
        trainer = SemanticStageTrainer(overrides=overrides(data, stage, **changes))
        start: dict[str, torch.Tensor] = {}
        trainer.add_callback(
            "on_train_start",
            lambda t, start=start: start.update({n: p.detach().clone() for n, p in t.model.named_parameters()}),
        )
        trainer.train()
        layers = dict(trainer.model.named_modules())
        dilated = [n for n, m in layers.items() if isinstance(m, torch.nn.Conv2d) and m.dilation[0] > 1]
        moves.append({n: layers[n].weight.detach() - start[f"{n}.weight"] for n in dilated})
    assert len(moves[0]) > 20
    for name, exact in moves[0].items():
        assert torch.cosine_similarity(exact.flatten(), moves[1][name].flatten(), 0) > 0.9, name


def test_ids_at_native_size_without_the_letterbox() -> None:
    """A 40x64 image, 12 rows of padding above and below it; once at its size, once seen at half of it."""
    truth = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (5, 8))).repeat_interleave(8, 0)
    truth = truth.repeat_interleave(8, 1)
    boxed = torch.full((64, 64), 3)
    boxed[12:52] = truth
    logits = torch.nn.functional.one_hot(boxed, 4).permute(2, 0, 1).float()
    for output in (boxed.to(torch.uint8), logits):
        assert torch.equal(native_classes(output[None], (40, 64), ((1.0, 1.0), (0.0, 12.0)))[0], truth)
    half = native_classes(boxed[None, ::2, ::2], (40, 64), ((0.5, 0.5), (0.0, 6.0)))[0]
    assert torch.equal(half, truth)


def test_fitness_and_columns_are_those_of_the_matrix() -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, (2, 50, 50))
    metrics = MaskMetrics(dict(enumerate(NEU_NAMES)))
    metrics.matrix += torch.from_numpy(confusion_matrix(truth, found, 4))
    metrics.process()
    expected = segmentation_scores(confusion_matrix(truth, found, 4))
    assert metrics.fitness == expected.miou_fg != expected.miou_all
    named = dict(zip(metrics.keys, metrics.mean_results(), strict=True))
    assert named["metrics/mIoU_fg"] == expected.miou_fg and named["metrics/mIoU"] == expected.miou_all
    assert named["metrics/IoU(patches)"] == expected.iou[2]
    metrics.clear_stats()
    metrics.process()
    assert metrics.fitness == 0.0 and all(np.isnan(metrics.mean_results()))


@pytest.mark.train
def test_rate_falls_in_steps(data: Path, tmp_path: Path) -> None:
    settings = {"boundary": 0.0, "lr_steps": (1 / 3, 0.5), "lr_factor": 0.1, "batches_per_epoch": 1}
    trainer = train(data, tmp_path / "train" / "steps", settings, epochs=6, imgsz=16)
    rates = [float(row["lr/pg0"]) for row in read_results_csv(trainer.csv)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-5, 1e-5])


@pytest.mark.train
def test_first_epoch_has_the_full_rate_however_short_the_training(data: Path, tmp_path: Path) -> None:
    for epochs in (1, 2):
        settings = {"boundary": 0.0, "batches_per_epoch": 1}
        trainer = train(data, tmp_path / "train" / f"short{epochs}", settings, epochs=epochs, imgsz=16)
        rates = [float(row["lr/pg0"]) for row in read_results_csv(trainer.csv)]
        assert rates == pytest.approx([1e-3, 1e-3 / 8][:epochs])


@pytest.mark.train
def test_loss_that_is_not_finite_stops_the_training(data: Path, tmp_path: Path) -> None:
    stage = tmp_path / "train" / "broken"
    segmentation_settings(batches_per_epoch=3, selftest_steps=1).write(stage)
    trainer = SemanticStageTrainer(overrides=overrides(data, stage, epochs=1))

    def spoil(t: SemanticStageTrainer) -> None:
        if t.batches_done == 1:
            with torch.no_grad():
                next(t.model.parameters()).fill_(float("nan"))

    trainer.add_callback("on_train_batch_end", spoil)
    with pytest.raises(UserError, match=r"the loss is not finite in batch 2 of the training, epoch 1; start again"):
        trainer.train()


@pytest.mark.train
def test_own_model_of_ultralytics_is_validated_on_padded_images(tmp_path: Path) -> None:
    """Its logits are an eighth of the input, but the padding is given in pixels of the input."""
    data = mask_data(tmp_path, side=64)
    for file in (*tmp_path.glob("images/*/*.png"), *tmp_path.glob("masks/*/*.png")):
        with Image.open(file) as image:
            image.crop((0, 0, 64, 40)).save(file)
    trainer = train(data, tmp_path / "train" / "wide", {"boundary": 0.0}, epochs=1, model="yolo26n-sem.yaml", imgsz=64)
    measured = evaluate_masks(trainer.best, on_val(data, 64))
    row = read_results_csv(trainer.csv)[0]
    assert float(row["metrics/pixel_acc"]) == pytest.approx(measured["pixel_accuracy"], abs=0.02)


@pytest.mark.train
def test_goes_on_to_the_last_bit(data: Path, teacher: Path, tmp_path: Path) -> None:
    stages = tmp_path / "train" / "whole", tmp_path / "train" / "stopped"
    unlabeled = {"unlabeled": str(data.parent / "unlabeled.txt"), "unlabeled_share": 0.5, "cutmix": 0.5}
    for stage in stages:
        settings = {"teacher": str(teacher), "kd": 15.0, "strong_view": 0.5, "selftest_steps": 3, **unlabeled}
        segmentation_settings(batches_per_epoch=2, **settings).write(stage)
        stops = [(1, 1), (2, 0)] if stage is stages[1] else ()
        interrupted.train(SemanticStageTrainer, overrides(data, stage, epochs=3, nbs=12), stops)
    interrupted.assert_same_training(*stages)


@pytest.mark.train
def test_ultralytics_own_model_is_trained_the_same_way(data: Path, tmp_path: Path) -> None:
    trainer = train(data, tmp_path / "train" / "yolo", {"boundary": 0.0}, epochs=1, model="yolo26n-sem.yaml")
    assert trainer.args.imgsz == 64 and "train/aux" in read_results_csv(trainer.csv)[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kd": 1.0}, "needs a teacher"),
        ({"unlabeled": "list.txt"}, "only through a teacher"),
        ({"ce": -1.0}, "ce"),
        ({"kd": 1.0, "teacher": "nothing.pt"}, "does not exist"),
    ],
)
def test_settings_that_do_not_fit(data: Path, tmp_path: Path, settings: dict, message: str) -> None:
    stage = tmp_path / "train" / "wrong"
    segmentation_settings(batches_per_epoch=1, **settings).write(stage)
    with pytest.raises(UserError, match=message):
        SemanticStageTrainer(overrides=overrides(data, stage))


def test_data_without_masks(data: Path, tmp_path: Path) -> None:
    """Ultralytics takes a folder masks/ by itself, and polygons where there is none."""
    lines = {part: str(data.parent / f"{part}.txt") for part in ("train", "val")}
    other = tmp_path / "polygons.yaml"
    other.write_text(yaml.safe_dump({"path": str(tmp_path), **lines, "names": dict(enumerate(NEU_NAMES))}))
    stage = tmp_path / "train" / "wrong"
    segmentation_settings(batches_per_epoch=1).write(stage)
    with pytest.raises(UserError, match="no entry masks_dir"):
        SemanticStageTrainer(overrides=overrides(other, stage))


def test_evaluation_equals_a_count_by_hand(tmp_path: Path, teacher: Path) -> None:
    """Images of two shapes: neither changes what is predicted for the other, and every mask counts at its own size."""
    file = mask_data(tmp_path, side=64, val=3)
    for folder in ("images", "masks"):
        path = tmp_path / folder / "val" / "1.png"
        Image.open(path).crop((0, 0, 64, 40)).save(path)
    found = evaluate_masks(teacher, on_val(file, 64))
    model, total = load_semantic(teacher), np.zeros((4, 4), int)
    for i in range(3):
        image = np.asarray(Image.open(tmp_path / "images" / "val" / f"{i}.png")).transpose(2, 0, 1)
        ids = model(torch.from_numpy(image.copy())[None] / 255)[0].argmax(0).numpy()
        total += confusion_matrix(np.asarray(Image.open(tmp_path / "masks" / "val" / f"{i}.png")), ids, 4)
    expected = segmentation_scores(total)
    assert found["miou_fg"] == pytest.approx(expected.miou_fg, abs=1e-3)
    assert found["pixel_accuracy"] == pytest.approx(expected.pixel_accuracy, abs=1e-3)
    assert found["images"] == 3 and found["parameters"] == sum(p.numel() for p in model.parameters())
    assert [row["pixels"] for row in found["per_class"].values()] == total.sum(1).tolist()
    half = evaluate_masks(teacher, on_val(file, 32))
    assert sum(row["pixels"] for row in half["per_class"].values()) == total.sum() and half["imgsz"] == 32


@pytest.mark.train
def test_exported_file_is_worth_the_same(data: Path, teacher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "teacher.pt"
    copy.write_bytes(teacher.read_bytes())
    exported = Path(YOLO(copy).export(format="onnx", imgsz=40, batch=4, simplify=False, verbose=False))
    plain = evaluate_masks(copy, on_val(data, 40))
    found = evaluate_masks(exported, on_val(data, 40))
    assert found["miou_fg"] == pytest.approx(plain["miou_fg"], abs=1e-3) and found["parameters"] is None


def test_evaluation_needs_a_file_and_a_split(data: Path, teacher: Path) -> None:
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate_masks(Path("none.pt"), on_val(data, 40))
    with pytest.raises(UserError, match="no 'other:' entry"):
        evaluate_masks(teacher, replace(on_val(data, 40), split="other"))


@pytest.mark.train
def test_latency_is_taken_in_turns(teacher: Path, taught: SemanticStageTrainer, monkeypatch) -> None:
    order: list[int] = []
    clock = iter(range(1000))
    monkeypatch.setattr("dfssd.evaluation.latency.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    hook = register_module_forward_pre_hook(
        lambda module, inputs: order.append(inputs[0].shape[-1]) if isinstance(module, MFFMetalModel) else None
    )
    sizes = {"wide": 40, "narrow": 46}
    try:
        found = time_networks({"wide": teacher, "narrow": taught.best}, imgsz=sizes, device="cpu", rounds=4, warm_up=1)
    finally:
        hook.remove()
    assert order == [40, 48, 48, 40] * 2 + [40, 48]
    for name, row in found.items():
        assert row["median_ms"] == row["low_ms"] == row["high_ms"] == 1000.0
        assert row["imgsz"] == {"wide": 40, "narrow": 48}[name] and row["rounds"] == 4 and row["device"] == "cpu"
