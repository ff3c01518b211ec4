"""Ultralytics' own loggers: as its settings say, unless the run is tracked as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from ultralytics import utils
from ultralytics.utils.callbacks import mlflow, tensorboard, wb

from dfssd.trainers.callbacks import FIRST, top_package
from dfssd.trainers.stage import StageTrainer
from tests import configured
from tests.trainers.test_stages import overrides


@pytest.mark.parametrize("own_loggers", [True, False])
def test_loggers_take_part_unless_the_run_is_tracked(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_loggers: bool
) -> None:
    begun: list[str] = []
    for name, module in {"mlflow": mlflow, "tensorboard": tensorboard, "wandb": wb}.items():

        def begin(trainer: StageTrainer, name: str = name) -> None:
            begun.append(name)

        begin.__module__ = module.__name__
        monkeypatch.setattr(module, "callbacks", {FIRST: begin, "on_train_batch_start": begin})
        monkeypatch.setattr(utils, "SETTINGS", {**utils.SETTINGS, name: True})
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1, own_loggers=own_loggers).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage))
    trainer.run_callbacks("on_train_batch_start")
    assert sorted(begun) == (
        ["mlflow", "mlflow", "tensorboard", "tensorboard", "wandb", "wandb"] if own_loggers else []
    )


def test_functions_of_the_loggers_are_known_by_their_modules() -> None:
    for module in (tensorboard, mlflow, wb):
        assert module.on_fit_epoch_end.__module__ == module.__name__
        assert top_package(module.on_fit_epoch_end) == "ultralytics"
