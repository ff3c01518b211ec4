"""The processes of ``benchmark_run``: one prepares data and teacher, one trains by Ultralytics alone, one scores.

Each reads a JSON file that says what to do, and writes what it found to the file named there as ``result``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfssd.errors import UserError, report_problems
from dfssd.files import write_json, write_text, write_yaml

if TYPE_CHECKING:
    from dfssd.trainers.clock import Clock

EVENTS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_fit_epoch_end",
)
"""Callbacks of a training that the clock reads."""


def run(kind: str, file: str) -> int:
    """Do the job in ``file``, one of :data:`KINDS`; return the exit code."""
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    try:
        write_json(job["result"], KINDS[kind](job))
    except UserError as e:
        return report_problems(e)
    return 0


def prepare(job: Mapping[str, Any]) -> dict[str, Any]:
    """Import and split the data, make the teacher ready, and write data for Ultralytics with epochs of our length.

    Ultralytics' epoch is one pass over the images of a list, and ours a number of batches in which the student sees
    each labeled image once. In the list written here the labeled images repeat until both have the same length, so that
    optimizer steps, epochs, warm-up, and validations are the same for all.

    Args:
        job: ``given``: arguments of ``train.py``.
    """
    from dfssd.log import console
    from dfssd.pipeline import open_run
    from dfssd.runs.configure import configure

    with console():
        opened = open_run(configure(job["given"]), "benchmark_run")
        opened.folder.run_stage("prepare", opened.prepare, earlier=())  # type: ignore[attr-defined]
        opened.folder.run_stage("teacher", opened.teacher, earlier=("prepare",))  # type: ignore[attr-defined]
    folder, length = opened.folder.path, opened.batches_per_epoch()
    images = opened.inputs.listed("train_labeled")
    repeated = [images[i % len(images)] for i in range(length * opened.batch)]
    write_text(folder / "splits" / "train_repeated.txt", "".join(f"{path}\n" for path in repeated))
    lists = {part: str(folder / "splits" / f"{part}.txt") for part in ("val", "test")}
    names = dict(enumerate(opened.data.classes))
    write_yaml(folder / "data.yaml", {"train": str(folder / "splits" / "train_repeated.txt"), **lists, "names": names})
    return {
        "data": str(folder / "data.yaml"),
        "splits": str(folder / "splits"),
        "teacher": str(folder / "weights" / "teacher.pt"),
        "batches_per_epoch": length,
        "labeled": len(images),
        "unlabeled": opened.data.train_unlabeled,
        "device": opened.device,
        "amp": opened.amp,
        "cpu_bf16": opened.cpu_bf16,
        "stages": {stage.name: stage.seconds for stage in opened.record.stages},
    }


def train(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train by ``YOLO(student).train(...)``, which is what ``yolo train`` calls, with callbacks that only take times.

    Args:
        job: ``student``, ``arguments`` of ``YOLO.train``, and ``all_threads``, see :func:`take_times`.
    """
    from dfssd.trainers.clock import Clock
    from dfssd.trust.checkpoints import open_yolo

    clock, counts = Clock(), {"batches": 0, "optimizer_steps": 0}
    model = open_yolo(job["student"], task="detect")
    take_times(model.add_callback, clock, counts, all_threads=job["all_threads"])
    model.train(**job["arguments"])
    trainer: Any = model.trainer
    return {
        "seconds": clock.record(),
        **counts,
        "optimizer": type(trainer.optimizer).__name__,
        "weights": str(trainer.best if trainer.best.exists() else trainer.last),
    }


def take_times(
    add: Callable[[str, Callable[[Any], object]], None], clock: Clock, counts: dict[str, int], *, all_threads: bool
) -> None:
    """Let a clock follow a training of Ultralytics.

    Args:
        add: Adds a callback to an event.
        clock: Follows the training.
        counts: ``batches`` and ``optimizer_steps`` are counted here.
        all_threads: Compute on ``OMP_NUM_THREADS`` threads: Ultralytics leaves one core free when it selects the CPU.
    """

    def follow(event: str) -> Callable[[Any], None]:
        def callback(_: Any) -> None:
            clock.before(event)
            clock.after(event)

        return callback

    def begin(_: Any) -> None:
        clock.switch("setup")
        clock.seconds["setup"] = 0.0  # imports are no part of the training

    def start(trainer: Any) -> None:
        clock.watch(trainer.scaler, trainer.device)
        if all_threads:
            import torch

            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"].partition(",")[0]))

    def count(trainer: Any) -> None:
        counts["batches"] += 1
        counts["optimizer_steps"] = trainer.ema.updates

    add("on_pretrain_routine_start", begin)
    add("on_train_start", start)
    for event in EVENTS:
        add(event, follow(event))
    add("on_train_batch_end", count)

    def validate(_: Any) -> None:
        clock.switch("validation")

    def write(_: Any) -> None:  # the row of results.csv and the checkpoints come next
        clock.switch("writing")

    add("on_val_start", validate)
    add("on_val_end", write)


def score(job: Mapping[str, Any]) -> dict[str, Any]:
    """mAP50-95 of checkpoints, all by the same validator.

    Args:
        job: ``weights``: name -> checkpoint; ``data``, ``imgsz``, ``batch``, ``device``, and ``folder`` to work in.
    """
    from dfssd.detection.evaluate import evaluate
    from dfssd.evaluation.settings import EvalSettings

    def of(weights: str, split: str) -> float | None:
        settings = EvalSettings(Path(job["data"]), split, job["imgsz"], job["batch"], job["device"])
        found: float | None = evaluate(Path(weights), settings, save_dir=Path(job["folder"]) / "score")["map50_95"]
        return found

    return {name: {split: of(file, split) for split in ("val", "test")} for name, file in job["weights"].items()}


KINDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "prepare": prepare,
    "train": train,
    "score": score,
}
