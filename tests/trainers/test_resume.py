"""A training that was interrupted, or killed, ends as if it had not been: to the last bit."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dfssd.detection.trainer import StudentTrainer
from dfssd.errors import UserError
from dfssd.trainers.checkpoints import read_checkpoint
from dfssd.trainers.resume import FILE, last_epoch, read_state
from dfssd.trainers.settings import StageSettings
from dfssd.trainers.stage import StageTrainer
from tests import configured, processes
from tests.trainers.interrupted import assert_same_training, train
from tests.trainers.test_stages import TERMS, overrides, student_settings

VIEWS = {"mosaic": 1.0, "mixup": 0.3, "degrees": 5.0, "close_mosaic": 1, "warmup_epochs": 1.0}
"""Arguments with which as much as possible is drawn at random."""


def both(tmp_path: Path, settings: StageSettings) -> tuple[Path, Path]:
    """Folders of two stages with the same settings."""
    stages = tmp_path / "train" / "whole", tmp_path / "train" / "stopped"
    for stage in stages:
        settings.write(stage)
    return stages


@pytest.mark.train
@pytest.mark.parametrize("nbs", [4, 12])
def test_training_on_labels_goes_on_with_everything(squares: Path, tmp_path: Path, nbs: int) -> None:
    """Stopped after epochs that end in the middle of a step (nbs=12: three batches), and within an epoch."""
    whole, stopped = both(tmp_path, configured.labels_alone(4))
    words = {"epochs": 4, "nbs": nbs, **VIEWS}
    train(StageTrainer, overrides(squares, whole, **words))
    train(StageTrainer, overrides(squares, stopped, **words), stops=[(1, 0), (2, 3)])
    assert_same_training(whole, stopped)


@pytest.mark.train
@pytest.mark.parametrize("mean_teacher", [False, True])
def test_student_goes_on_with_thresholds_balance_guard_and_self_test(
    squares, pseudo, teacher_file, tmp_path, mean_teacher: bool
) -> None:
    settings = student_settings(
        pseudo,
        teacher_file,
        mode="online",
        strong_view=0.7,
        terms={name: {**options, "share": 0.3} for name, options in TERMS.items()},
        balance=True,
        labels_last=0.25,
        guard=(0.9,) * 4,
        guard_patience=2,
        selftest_steps=4,
    )
    if mean_teacher:
        settings = replace(settings, pseudo="", teacher="")
    whole, stopped = both(tmp_path, settings)
    words = {"epochs": 4, "nbs": 8, **VIEWS}
    train(StudentTrainer, overrides(squares, whole, **words))
    train(StudentTrainer, overrides(squares, stopped, **words), stops=[(1, 1), (3, 2)])
    assert_same_training(whole, stopped)


def die(squares: Path, stage: Path, epoch: int, half: str | None) -> None:
    """Train, and die after the first batch of an epoch (from 0), perhaps with a file of its checkpoint half written."""

    def end(trainer: StageTrainer) -> None:
        if trainer.epoch == epoch:
            if half is None:
                trainer.writer.wait()
            os._exit(9)

    if half is not None:
        write, whole = Path.write_bytes, []

        def slow(path: Path, content: bytes) -> int:
            if path.name == f"writing_{half}":
                whole.append(path)
                if len(whole) == 2:
                    write(path, content[: len(content) // 2])
                    time.sleep(60)
            return write(path, content)

        setattr(Path, "write_bytes", slow)  # noqa: B010
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=4, **VIEWS))
    trainer.add_callback("on_train_batch_end", end)
    trainer.train()


@pytest.mark.train
def test_killed_process_leaves_a_training_that_goes_on(squares: Path, tmp_path: Path) -> None:
    """Killed in the second epoch after a checkpoint, then between two validations while the next one is written."""
    whole, stopped = both(tmp_path, configured.labels_alone(2, val_every=2))
    train(StageTrainer, overrides(squares, whole, epochs=4, **VIEWS))
    killed = processes.run(die, squares, stopped, 2, "last.pt", folder=tmp_path)
    assert killed.returncode == 9, killed.output[-2000:]
    assert list(stopped.glob("weights/writing_*")) and last_epoch(stopped) == 0
    with open(stopped / "results.csv", "a", encoding="utf-8") as f:
        f.write("9,half-writ")
    train(StageTrainer, overrides(squares, stopped, epochs=4, resume=str(stopped / "weights" / "last.pt"), **VIEWS))
    assert_same_training(whole, stopped)


@pytest.mark.train
@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_kill_between_two_files_of_a_checkpoint_repeats_an_epoch(
    squares: Path, tmp_path: Path, monkeypatch, renamed: int
) -> None:
    """``best.pt`` and ``last.pt`` may be an epoch ahead of the state, which alone counts."""
    whole, stopped = both(tmp_path, configured.labels_alone(2))
    train(StageTrainer, overrides(squares, whole, epochs=3))
    replace_file, done = os.replace, []

    def stop(source: Any, target: Any) -> None:
        if Path(target).suffix == ".pt":
            done.append(Path(target).name)
            if len(done) == 4 + renamed:  # of the second checkpoint
                raise KeyboardInterrupt
        replace_file(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            StageTrainer(overrides=overrides(squares, stopped, epochs=3)).train()
    assert done[:3] == ["best.pt", "last.pt", FILE]
    assert read_checkpoint(stopped / "weights" / "last.pt")["epoch"] == int(renamed == 2) and last_epoch(stopped) == 0
    train(StageTrainer, overrides(squares, stopped, epochs=3, resume=str(stopped / "weights" / "last.pt")))
    assert_same_training(whole, stopped)


@pytest.mark.train
def test_state_is_plain_and_whole_and_others_are_refused(squares, pseudo, teacher_file, tmp_path) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file).write(stage)
    weights = stage / "weights"
    seen: dict[str, Any] = {}

    def look(trainer: StudentTrainer) -> None:
        trainer.writer.wait()
        seen.update(read_state(weights))
        seen["last"] = torch.load(weights / "last.pt", weights_only=False)
        seen["size"] = (weights / FILE).read_bytes()

    trainer = StudentTrainer(overrides=overrides(squares, stage, epochs=2))
    trainer.add_callback("on_model_save", look)
    trainer.train()
    assert seen["epoch"] == 1 and seen["stop"] and seen["batches_done"] == 6 and not seen["gradients"]
    assert not any(name.startswith("teacher_model.") for name in (*seen["model"], *seen["ema"])), "it has its own file"
    assert seen["last"]["optimizer"] == {"state": {}, "param_groups": []}, "no second copy"
    assert all(value.dtype == torch.float32 for value in seen["model"].values() if value.is_floating_point())
    assert last_epoch(stage) == -1 and not (weights / FILE).exists(), "nothing of it is left behind"

    (weights / "last.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.pt is damaged .*; remove .*student, and that training is repeated"):
        last_epoch(stage)
    torch.save({**seen["last"], "epoch": 0}, weights / "last.pt")
    assert last_epoch(stage) is None, "died between the first files: it begins anew"
    torch.save({**seen["last"], "epoch": 0, "optimizer": {"state": {0: {}}}}, weights / "last.pt")
    with pytest.raises(UserError, match="interrupted by another version of dfssd"):
        last_epoch(stage)
    for content, words in ((seen["size"][:1000], "is damaged"), (b"", "is damaged")):
        (weights / FILE).write_bytes(content)
        with pytest.raises(UserError, match=rf"{FILE} {words} .*; remove {stage}, and that training is repeated"):
            last_epoch(stage)
    torch.save({"format": 99}, weights / FILE)
    with pytest.raises(UserError, match=r"is of another version of dfssd \(form 99"):
        last_epoch(stage)


@pytest.mark.train
def test_training_that_had_ended_early_is_not_gone_on_with(squares: Path, tmp_path: Path, monkeypatch) -> None:
    """Killed between its last checkpoint and its final evaluation."""
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=9))
    trainer.add_callback("on_train_batch_end", lambda trainer: setattr(trainer, "stop", trainer.epoch == 1))
    monkeypatch.setattr(StageTrainer, "final_eval", lambda trainer: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert read_checkpoint(stage / "weights" / "last.pt")["epoch"] == 1 and last_epoch(stage) == -1
