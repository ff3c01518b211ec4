"""Checkpoints beside the training: whole or not at all, in order, no error lost; epochs without validation."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from ultralytics.models.yolo.detect import DetectionValidator

from dfssd.trainers import stage as stage_module
from dfssd.trainers.checkpoints import BackgroundWriter, aside, put_in_place, read_checkpoint, write_checkpoints
from dfssd.trainers.results_csv import columns_of, read_results_csv
from dfssd.trainers.stage import StageTrainer
from tests import configured, processes
from tests.trainers.test_stages import overrides


def test_work_is_done_in_order_beside_the_caller_and_errors_come_with_the_next_wait() -> None:
    writer, done, go_on = BackgroundWriter(), [], threading.Event()

    def slow() -> None:
        go_on.wait(10)
        done.append(1)

    writer.start(slow)
    assert done == [], "the caller goes on"
    go_on.set()
    writer.start(lambda: done.append(2))
    writer.wait()
    assert done == [1, 2]

    def fails() -> None:
        raise OSError(28, "No space left on device")

    writer.start(fails)
    with pytest.raises(OSError, match="No space left"):
        writer.start(lambda: done.append(3))
    writer.wait()
    assert done == [1, 2], "what comes after an error is not done"
    writer.start(fails)
    writer.join()
    writer.join()
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    writer.wait()


@pytest.mark.parametrize("full", ["writing_best.pt", "writing_last.pt", "the summary"])
def test_files_that_cannot_be_written_leave_the_old_ones(tmp_path: Path, monkeypatch, full: str) -> None:
    best, last, summary = tmp_path / "best.pt", tmp_path / "last.pt", tmp_path / "student.json"
    write_checkpoints({best: b"old", last: b"old"}, summary, {"epochs": 1})
    write = Path.write_bytes

    def fill(path: Path, content: bytes) -> int:
        if path.name == full or (full == "the summary" and path.suffix == ".json"):
            write(path, content[:1])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises((OSError, SystemExit, Exception), match="No space left"):
        write_checkpoints({best: b"new", last: b"new"}, summary, {"epochs": 2})
    assert best.read_bytes() == last.read_bytes() == b"old"
    assert json.loads(summary.read_text(encoding="utf-8")) == {"epochs": 1}


def test_files_appear_in_order(tmp_path: Path, monkeypatch) -> None:
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    renamed = []
    replace = os.replace

    def note(source: Path, target: Path) -> None:
        renamed.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    write_checkpoints({best: b"1", last: b"1"}, tmp_path / "student.json", {})
    assert renamed == ["student.json", "best.pt", "last.pt"]
    aside(last).write_bytes(b"2")
    put_in_place(best, last)
    assert (best.read_bytes(), last.read_bytes()) == (b"1", b"2")


def trained(squares: Path, stage: Path, every: int, epochs: int = 5, **changes: Any) -> StageTrainer:
    """A training of two batches an epoch, validated every so many epochs."""
    configured.labels_alone(2, val_every=every).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=epochs, **changes))
    trainer.train()
    return trainer


def weights(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(path, weights_only=False)
    return (checkpoint["ema"] or checkpoint["model"]).float().state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def summary_of(stage: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.with_name(f"{stage.name}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.train
def test_fewer_validations_give_the_same_network_and_the_same_scores_where_there_are_some(squares, tmp_path) -> None:
    always, seldom = tmp_path / "train" / "always", tmp_path / "train" / "seldom"
    trained(squares, always, 1)
    trained(squares, seldom, 2)
    assert same(weights(always / "weights" / "last.pt"), weights(seldom / "weights" / "last.pt"))
    rows, fewer = read_results_csv(always / "results.csv"), read_results_csv(seldom / "results.csv")
    assert list(rows[0]) == list(fewer[0]) and len(rows) == len(fewer) == 5
    scored = [name for name in rows[0] if name.startswith(("metrics/", "val/"))]
    assert len(scored) == 7
    for epoch, (row, other) in enumerate(zip(rows, fewer, strict=True), 1):
        known = epoch in {2, 4, 5}
        for name in (set(row) - {"time"}) if known else (set(row) - {"time", *scored}):
            assert row[name] == other[name], (epoch, name)
        assert known or all(math.isnan(float(other[name])) for name in scored)
    before, after = summary_of(always), summary_of(seldom)
    assert [score is None for score in after["val_score_by_epoch"]] == [True, False, True, False, False]
    assert after["val_score_by_epoch"][3:] == before["val_score_by_epoch"][3:]
    assert after["epochs_done"] == 5 and after["batches"] == 10
    scores = [score for score in after["val_score_by_epoch"] if score is not None]
    assert after["val_score"] == max(scores) == after["val_score_by_epoch"][after["best_epoch"] - 1]


@pytest.mark.train
@pytest.mark.parametrize("long", [False, True])
def test_checkpoints_follow_validations_and_long_epochs(squares, tmp_path, monkeypatch, long: bool) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1, val_every=3).write(stage)
    monkeypatch.setattr(stage_module, "LONGEST_LOSS", 0.0 if long else 600.0)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=5))
    saved: list[tuple[int, int | None, int | None]] = []

    def look(trainer: StageTrainer) -> None:
        found = tuple(read_checkpoint(f)["epoch"] if f.exists() else None for f in (trainer.last, trainer.best))
        saved.append((trainer.epoch, *found))

    trainer.add_callback("on_model_save", look)
    trainer.train()
    epochs = [0, 1, 2, 3, 4] if long else [0, 2, 4]
    assert [row[:2] for row in saved] == [(epoch, epoch) for epoch in epochs], "a callback sees the new checkpoint"
    assert all(best is None for epoch, _, best in saved if epoch < 2), "none is the best before there is a score"
    assert all(best in {2, 4} for epoch, _, best in saved if epoch >= 2)


@pytest.mark.train
def test_final_score_is_the_one_of_the_best_epoch_and_callbacks_get_it(squares, tmp_path, monkeypatch) -> None:
    """Without plots nothing is validated again; with them Ultralytics' own final validation gives the same numbers."""
    found = {}
    for plots in (False, True):
        stage = tmp_path / "train" / f"plots_{plots}"
        configured.labels_alone(2, val_every=2).write(stage)
        trainer = StageTrainer(overrides=overrides(squares, stage, epochs=4, plots=plots))
        calls: list[bool] = []
        ends: list[tuple[int, dict[str, float]]] = []
        trainer.add_callback("on_val_start", lambda validator, calls=calls: calls.append(validator.training))
        trainer.add_callback(
            "on_fit_epoch_end", lambda trainer, ends=ends: ends.append((trainer.epoch, dict(trainer.metrics)))
        )
        trainer.train()
        found[plots] = (calls, ends, trainer)
        assert isinstance(trainer.validator, DetectionValidator)
        assert (
            read_checkpoint(stage / "weights" / "best.pt")["epoch"]
            == read_checkpoint(stage / "weights" / "last.pt")["epoch"]
            == -1
        )
    assert found[False][0] == [True, True] and found[True][0] == [True, True, False]
    for plots in (False, True):
        assert [epoch for epoch, _ in found[plots][1]] == [0, 1, 2, 3, 4]
    known, measured = found[False][1][-1][1], found[True][1][-1][1]
    assert list(known) == list(measured) and known == found[False][2].metrics
    assert known == pytest.approx(measured, abs=0.02)
    summary = summary_of(tmp_path / "train" / "plots_False")
    assert known[StageTrainer.SCORE] == summary["val_score"]
    assert (tmp_path / "train" / "plots_True" / "results.png").exists()


@pytest.mark.train
@pytest.mark.parametrize(("every", "epoch", "newest"), [(1, 2, 1), (3, 1, 0)], ids=["always", "before any validation"])
def test_nan_is_left_by_the_newest_checkpoint(
    squares, tmp_path, monkeypatch, every: int, epoch: int, newest: int
) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1, val_every=every).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=3))
    broken: list[int] = []

    def spoil(trainer: StageTrainer) -> None:
        if trainer.epoch == epoch and not broken:
            broken.append(1)
            trainer.loss = trainer.loss * float("nan")

    write = Path.write_bytes

    def slow(path: Path, content: bytes) -> int:
        if path.name.startswith("writing_"):
            time.sleep(0.5)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", slow)
    seen = []
    recover = StageTrainer._handle_nan_recovery

    def look(trainer: StageTrainer, epoch: int) -> bool:
        done = recover(trainer, epoch)
        if done:
            seen.append(read_checkpoint(trainer.last)["epoch"])
        return done

    monkeypatch.setattr(StageTrainer, "_handle_nan_recovery", look)
    trainer.add_callback("on_train_batch_end", spoil)
    trainer.train()
    assert broken and seen == [newest]
    assert summary_of(stage)["epochs_done"] == 3


@pytest.mark.train
def test_training_stops_only_at_a_validation_and_patience_is_in_epochs(squares, tmp_path) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1, val_every=2).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=12, patience=3))

    def learned_once(trainer: StageTrainer) -> None:
        trainer.stopper.best_fitness, trainer.stopper.best_epoch = 0.9, 2

    trainer.add_callback("on_train_epoch_end", learned_once)
    trainer.train()
    assert summary_of(stage)["epochs_done"] == 6, "three epochs after the second would be the fifth, which has no score"


@pytest.mark.train
def test_epoch_in_which_someone_stops_the_training_is_validated_and_kept(squares, tmp_path) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1, val_every=4).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=12))
    trainer.add_callback("on_train_batch_end", lambda trainer: setattr(trainer, "stop", trainer.epoch == 1))
    trainer.train()
    summary = summary_of(stage)
    assert [score is None for score in summary["val_score_by_epoch"]] == [True, False]
    assert (stage / "weights" / "best.pt").exists()


def decide(rank: int, folder: str) -> None:
    """Which epochs one of two processes validates; the first one alone knows that it is stopped in epoch 1 (from 0)."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    trainer = SimpleNamespace(settings=SimpleNamespace(val_every=3), epochs=8, stop=False, device=torch.device("cpu"))
    found = []
    for trainer.epoch in range(8):
        trainer.stop = rank == 0 and trainer.epoch == 1
        found.append(StageTrainer._is_validated(trainer))
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


@pytest.mark.train
def test_processes_validate_together(tmp_path: Path) -> None:
    """One that validated alone would wait for the other forever."""
    start_processes(decide, args=(str(tmp_path),), nprocs=2, start_method=processes.METHOD)
    found = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert found[0] == found[1] == [epoch in {1, 2, 5, 7} for epoch in range(8)]


def test_columns_are_numbers_also_where_there_is_no_score(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("epoch,metrics/mAP50-95(B)\n1,nan\n2,0.5\n3,0.")
    found = columns_of(file)
    assert found["epoch"] == [1, 2, 3] and math.isnan(found["metrics/mAP50-95(B)"][0])
    assert found["metrics/mAP50-95(B)"][1:] == [0.5, 0]
    assert columns_of(tmp_path / "none.csv") == {}
