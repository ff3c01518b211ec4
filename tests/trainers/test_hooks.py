"""Two of Ultralytics' hooks that a training would not miss: nothing fails, it only learns something else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.data.augment import Mosaic
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer

from dfssd.detection.trainer import StudentTrainer
from dfssd.trainers.sampler import MixedSampler
from dfssd.trainers.stage import StageTrainer
from tests import configured
from tests.trainers.test_stages import overrides, student_settings

pytestmark = pytest.mark.train


class EnoughError(Exception):
    """Ends a training after its first step."""


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Everything that a normalization has gathered about its inputs."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value.clone() for name, value in model.named_buffers() if name.endswith(names)}


def one_step(trainer: StageTrainer) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    """Statistics of the model before and after the first optimizer step, and whether that has moved a weight."""
    seen: dict[str, Any] = {}

    def before(trainer: StageTrainer) -> None:
        seen["before"] = statistics(trainer.model)
        seen["weights"] = [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]

    def after(trainer: StageTrainer) -> None:
        seen["after"] = statistics(trainer.model)
        now = [p.detach() for p in trainer.model.parameters() if p.requires_grad]
        seen["moved"] = any(not torch.equal(a, b) for a, b in zip(seen["weights"], now, strict=True))
        raise EnoughError

    trainer.add_callback("on_train_start", before)
    trainer.add_callback("on_train_batch_end", after)
    with pytest.raises(EnoughError):
        trainer.train()
    return seen["before"], seen["after"], seen["moved"]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    assert before and before.keys() == after.keys()
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.train
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_freeze_bn_keeps_the_running_statistics_to_the_last_bit(squares: Path, tmp_path: Path, freeze_bn: bool) -> None:
    stage = tmp_path / "train" / "baseline"
    replace(configured.labels_alone(1), freeze_bn=freeze_bn).write(stage)
    before, after, moved = one_step(StageTrainer(overrides=overrides(squares, stage)))
    assert moved, "this was no training step"
    assert changed(before, after) == ([] if freeze_bn else list(before))


@pytest.mark.train
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_freeze_bn_reaches_the_student_inside_the_pair(
    squares: Path, pseudo, teacher_file: Path, tmp_path: Path, freeze_bn: bool
) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, batches_per_epoch=1, freeze_bn=freeze_bn).write(stage)
    before, after, moved = one_step(StudentTrainer(overrides=overrides(squares, stage)))
    assert moved, "this was no training step"
    assert all(name.startswith("student_model.") for name in before), "the teacher's are fused into its convolutions"
    assert changed(before, after) == ([] if freeze_bn else list(before))


EPOCHS, BATCHES, BATCH = 3, 3, 4


@pytest.fixture
def trainer(squares: Path, tmp_path: Path) -> Iterator[StageTrainer]:
    """A trainer with a loader that reads ahead: one worker keeps four batches ready, an epoch has three."""
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(BATCHES).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=EPOCHS, batch=BATCH, mosaic=1.0))
    trainer.args.workers = 1  # Ultralytics takes none on a CPU
    trainer.setup_model()
    trainer.train_loader = trainer.get_dataloader(trainer.data["train"], BATCH)
    yield trainer
    trainer.train_loader.close()


def images_of_epochs(trainer: StageTrainer, closing: int, close: Any) -> list[list[str]]:
    """Images of each epoch as Ultralytics' loop takes them, with the mosaic closed before epoch ``closing``."""
    epochs = []
    for trainer.epoch in range(EPOCHS):
        if trainer.epoch == closing:
            close()
            trainer.train_loader.reset()
        epochs.append([Path(image).stem for batch in trainer.train_loader for image in batch["im_file"]])
    return epochs


def planned(trainer: StageTrainer) -> list[list[str]]:
    """Images of each epoch as a sampler of the same seed lays them out."""
    files = [Path(image).stem for image in trainer.train_loader.dataset.datasets[0].im_files]
    seed = trainer.args.seed
    sampler = MixedSampler(len(files), 0, labeled_per_batch=BATCH, unlabeled_per_batch=0, batches=BATCHES, seed=seed)
    return [[files[i] for i in sampler] for _ in range(EPOCHS)]


def mosaic_of(trainer: StageTrainer) -> float:
    """Probability of a mosaic in the training images."""
    [found] = [t for t in _parts(trainer.train_loader.dataset.datasets[0].transforms) if isinstance(t, Mosaic)]
    return found.p


def _parts(transform: Any) -> list[Any]:
    inner = [part for t in getattr(transform, "transforms", ()) for part in _parts(t)]
    return [transform, *inner]


@pytest.mark.train
@pytest.mark.parametrize("closing", [1, 2])
def test_closing_the_mosaic_neither_skips_nor_repeats_images(trainer: StageTrainer, closing: int) -> None:
    assert mosaic_of(trainer) == 1
    assert images_of_epochs(trainer, closing, trainer._close_dataloader_mosaic) == planned(trainer)
    assert mosaic_of(trainer) == 0


@pytest.mark.train
def test_without_the_hook_the_epoch_that_was_read_ahead_would_be_lost(trainer: StageTrainer) -> None:
    """What Ultralytics' method alone does: otherwise the test above could not fail."""
    plain = images_of_epochs(trainer, 1, lambda: DetectionTrainer._close_dataloader_mosaic(trainer))
    plan = planned(trainer)
    assert plain[0] == plan[0] and plain[1:] != plan[1:]
    assert plain[1] not in plan[:2]


def test_ultralytics_closes_the_mosaic_and_then_starts_the_loader_anew() -> None:
    loop = inspect.getsource(BaseTrainer._do_train)
    assert 0 < loop.index("self._close_dataloader_mosaic()") < loop.index("self.train_loader.reset()")
    assert loop.index("self.epoch = epoch") < loop.index("self._model_train()") < loop.index("for i, batch in pbar")


@pytest.mark.train
@pytest.mark.parametrize(("asked", "expected"), [(None, [1.0, 1.0]), (0.25, [1.0, 0.25])])
def test_views_of_unlabeled_images_have_a_probability_of_mosaics_of_their_own(
    squares: Path, pseudo, teacher_file: Path, tmp_path: Path, asked: float | None, expected: list[float]
) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, unlabeled_mosaic=asked).write(stage)
    trainer = StudentTrainer(overrides=overrides(squares, stage, mosaic=1.0))
    trainer.setup_model()
    data = trainer.get_dataloader(trainer.data["train"], BATCH).dataset

    def mosaics() -> list[float]:
        return [t.p for part in data.datasets for t in _parts(part.transforms) if isinstance(t, Mosaic)]

    assert mosaics() == expected and trainer.args.mosaic == 1.0
    data.close_mosaic(trainer.args)
    assert mosaics() == [0.0, 0.0]
