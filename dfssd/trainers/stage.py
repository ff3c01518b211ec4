"""The trainer of one stage: Ultralytics' detection trainer with a fixed number of batches per epoch.

It differs from ``DetectionTrainer`` in five things only:

* an epoch is a number of batches from :class:`MixedSampler`, so that stages can be given equal budgets;
* ``last.pt`` and ``best.pt`` appear whole or not at all, and ``results.csv`` holds no epoch twice after a resume;
* bf16 mixed precision works on CPUs as well;
* the batches and optimizer steps that were really made are recorded;
* the host does not wait for the losses of every batch (:mod:`dfssd.trainers.loss_record`).
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, LOCAL_RANK, RANK
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import strip_optimizer, torch_distributed_zero_first

from dfssd.errors import UserError
from dfssd.files import atomic_write, write_json, write_text
from dfssd.hardware import use_all_cores
from dfssd.trainers.clock import Clock
from dfssd.trainers.loss_record import RecordedLosses
from dfssd.trainers.mixed_data import MixedDataset, MixedSampler, batch_composition, build_loader
from dfssd.trainers.optimizers import fused
from dfssd.trainers.settings import StageSettings

LEARNED = 0.02
"""Validation mAP50-95 below which a network does not find anything yet."""


class StageTrainer(RecordedLosses, DetectionTrainer):
    """Trains on the labeled images only: the teacher and the baseline. The student's trainer extends it."""

    last: Path
    best: Path
    settings: StageSettings

    SETTINGS: type[StageSettings] = StageSettings
    SCORE = "metrics/mAP50-95(B)"
    """The score that decides the best epoch: a column of ``results.csv``."""

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict | None = None, _callbacks: dict | None = None):
        """Build the Ultralytics trainer, then read the stage settings beside its folder."""
        self.clock = Clock()
        super().__init__(cfg, overrides, _callbacks)
        if overrides and "amp" in overrides:  # a resume keeps the checkpoint's value, which another device may refuse
            self.args.amp = overrides["amp"]
        self.settings = self.SETTINGS.read(self.save_dir)
        self.batches_done = 0
        for callback in (
            StageTrainer._use_cores,
            StageTrainer._align_sampler,
            StageTrainer._trim_csv,
            StageTrainer._start_clock,
        ):
            self.add_callback("on_train_start", callback)
        self.add_callback("on_train_batch_end", StageTrainer._count_batch)
        self.add_callback("on_fit_epoch_end", StageTrainer._wait_for_learning)

    def add_callback(self, event: str, callback: Any) -> None:
        """Add a callback once: in a multi-GPU run every process gets those of the first and then adds its own."""
        if callback not in self.callbacks[event]:
            super().add_callback(event, callback)

    def run_callbacks(self, event: str) -> None:
        """Ultralytics' callbacks; the clock learns from them which part of the training is running."""
        self.clock.before(event)
        super().run_callbacks(event)
        self.clock.after(event)
        if event == "on_train_end":
            self.write_summary()

    def optimizer_step(self) -> None:
        """Ultralytics' update of the weights, told apart by the clock."""
        with self.clock.updating():
            super().optimizer_step()

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Ultralytics' row of ``results.csv``."""
        with self.clock.running("writing"):
            super().save_metrics(metrics)

    def build_train_dataset(self, labeled: Any) -> MixedDataset:
        """The training data of this stage; ``labeled`` is the dataset Ultralytics built from the labeled list."""
        return MixedDataset(labeled)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' loader for validation; for training one with fixed batch composition and epoch length."""
        if mode != "train":
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        with torch_distributed_zero_first(rank):  # only one process scans the labels
            dataset = self.build_train_dataset(self.build_dataset(dataset_path, mode, batch_size))
        labeled, unlabeled = batch_composition(batch_size, self.settings.unlabeled_share)
        sampler = MixedSampler(
            dataset.n_labeled,
            len(dataset) - dataset.n_labeled,
            labeled_per_batch=labeled,
            unlabeled_per_batch=unlabeled,
            batches=self.settings.batches_per_epoch,
            seed=self.args.seed,
            rank=max(LOCAL_RANK, 0),
            world=max(self.world_size, 1),
        )
        sampler.epoch = self.start_epoch  # for a loader that is rebuilt with a smaller batch
        return build_loader(
            dataset, sampler, self.settings.loader, batch=batch_size, args=self.args, device=self.device
        )

    def build_optimizer(
        self, model: Any, name: str = "auto", *args: Any, iterations: float = 1e5, **kwargs: Any
    ) -> torch.optim.Optimizer:
        """Ultralytics' optimizer, fused, with ``auto`` resolved by the true number of optimizer steps of the stage.

        Ultralytics estimates that number from the size of the data set, which would let stages of equal budget end
        up with different optimizers.
        """
        steps = self.settings.batches_per_epoch * self.epochs / max(1, round(self.args.nbs / self.batch_size))
        return fused(super().build_optimizer(model, name, *args, iterations=steps, **kwargs))

    def preprocess_batch(self, batch: dict) -> dict:
        """Ultralytics' preprocessing; on the CPU it also switches bf16 autocast on for the step.

        Ultralytics refuses ``amp=bf16`` without CUDA, but calls this inside its (disabled) autocast block, whose exit
        restores the previous state: switching it on here covers exactly the forward pass and the loss.
        """
        if self.settings.cpu_bf16:
            torch.set_autocast_dtype("cpu", torch.bfloat16)
            torch.set_autocast_enabled("cpu", True)
        batch = super().preprocess_batch(batch)
        if self.device.type == "cpu":  # a step takes about a tenth less with the channels innermost
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def _model_train(self) -> None:
        """Ultralytics' training mode; with ``freeze_bn`` the normalizations stay as in inference."""
        super()._model_train()
        if self.settings.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def validate(self) -> tuple:
        """Ultralytics' validation, in the precision of the training as on CUDA."""
        with (
            self.clock.running("validation"),
            torch.autocast("cpu", torch.bfloat16, enabled=self.settings.cpu_bf16),
        ):
            return super().validate()

    def save_model(self) -> Any:
        """Ultralytics' checkpoints, written under other names first and renamed when complete.

        The summary is written before the renaming, so a checkpoint never exists without its summary.
        """
        with self.clock.running("writing"), self._checkpoints_aside():
            saved = super().save_model()
            self.write_summary()
            return saved

    def final_eval(self) -> None:
        """Ultralytics' final evaluation, which strips both checkpoints in place: done on copies, then renamed."""
        with self.clock.running("validation"), self._checkpoints_aside(copy_first=True):
            super().final_eval()

    @contextmanager
    def _checkpoints_aside(self, copy_first: bool = False) -> Iterator[None]:
        """Give :attr:`last` and :attr:`best` other names in the block and rename what it wrote afterwards.

        With ``copy_first`` every process of a multi-GPU run must enter, without it only the first.
        """
        last, best = self.last, self.best
        aside = {path: path.with_name(f"writing_{path.name}") for path in (last, best)}
        if RANK in {-1, 0}:
            for path, temporary in aside.items():
                temporary.unlink(missing_ok=True)  # of a process that died while writing it
                if copy_first and path.exists():
                    shutil.copyfile(path, temporary)
        self._wait_for_all(copy_first)
        self.last, self.best = aside[last], aside[best]
        try:
            yield
        finally:
            self.last, self.best = last, best
        self._wait_for_all(copy_first)
        if RANK in {-1, 0}:
            # best first: if the process dies in between, the older last.pt only repeats one epoch
            for path in (best, last):
                if aside[path].exists():
                    with open(aside[path], "rb+") as f:
                        os.fsync(f.fileno())
                    os.replace(aside[path], path)

    @staticmethod
    def _wait_for_all(together: bool) -> None:
        if together and dist.is_initialized():
            dist.barrier()

    def _close_dataloader_mosaic(self) -> None:
        """Close the mosaic; the loader is then started anew, and its workers may have been an epoch ahead."""
        super()._close_dataloader_mosaic()
        self.train_loader.sampler.epoch = self.epoch

    def train(self) -> None:
        """Train; a :class:`UserError` raised in a process of a multi-GPU run is raised again in the first one."""
        message = self.save_dir.with_name(f"{self.save_dir.name}.error")
        message.unlink(missing_ok=True)
        try:
            super().train()
        except UserError as e:
            if RANK != -1:
                write_text(message, str(e))
            raise
        except subprocess.CalledProcessError as e:
            if message.exists():
                raise UserError(message.read_text(encoding="utf-8")) from e
            raise

    @property
    def summary_file(self) -> Path:
        """Where :meth:`write_summary` writes: beside the folder of the stage, like its settings."""
        return self.save_dir.with_name(f"{self.save_dir.name}.json")

    def write_summary(self) -> None:
        """Write :meth:`summary`; done with every checkpoint, since the process may die before the last one."""
        if RANK in {-1, 0}:
            write_json(self.summary_file, self.summary())

    def summary(self) -> dict[str, Any]:
        """The record of this training for ``results.json`` (see docs/results.md)."""
        rows = read_results_csv(self.csv)
        scores = [float(row.get(self.SCORE) or 0) for row in rows]
        best = max(range(len(scores)), key=scores.__getitem__, default=None)
        return {
            "epochs": self.epochs,
            "epochs_done": len(rows),
            "batches": len(rows) * self.settings.batches_per_epoch,
            "optimizer_steps": self.ema.updates if self.ema else None,
            "batch": self.batch_size,
            "optimizer": type(self.optimizer).__name__,
            "lr0": self.args.lr0,
            "best_epoch": None if best is None else best + 1,
            "val_score": None if best is None else scores[best],
            "val_score_by_epoch": scores,
            "seconds": self.clock.record(),
        }

    @staticmethod
    def _start_clock(trainer: StageTrainer) -> None:
        """Continue the clock of the earlier sessions, and let it tell the phases of the steps."""
        trainer.clock.watch(trainer.model, trainer.device)
        if trainer.start_epoch and trainer.summary_file.exists():
            before = json.loads(trainer.summary_file.read_text(encoding="utf-8"))
            trainer.clock.add(before.get("seconds", {}))

    @staticmethod
    def _use_cores(trainer: StageTrainer) -> None:
        if trainer.device.type == "cpu":
            use_all_cores()

    @staticmethod
    def _align_sampler(trainer: StageTrainer) -> None:
        trainer.train_loader.sampler.epoch = trainer.start_epoch

    @staticmethod
    def _wait_for_learning(trainer: StageTrainer) -> None:
        """Start the patience of early stopping once the network has learned something.

        Ultralytics waits while the fitness is exactly 0. From random weights it stays just above 0 for many epochs and
        fluctuates: a lucky 0.007 would stay the best for long, and the training would stop before it has learned.
        """
        stopper = trainer.stopper
        if stopper.best_fitness < LEARNED:
            stopper.best_epoch = trainer.epoch + 2  # Ultralytics counts epochs from 1; the next one is not late either

    @staticmethod
    def _count_batch(trainer: StageTrainer) -> None:
        trainer.batches_done += 1

    @staticmethod
    def _trim_csv(trainer: StageTrainer) -> None:
        """Drop rows of epochs that the checkpoint does not hold: the process died between the row and the file."""
        if RANK not in {-1, 0} or not trainer.csv.exists():
            return
        rows = [row for row in read_results_csv(trainer.csv) if int(row["epoch"]) <= trainer.start_epoch]
        if not rows:
            trainer.csv.unlink()
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(trainer.csv, text.getvalue())


def read_results_csv(path: Path) -> list[dict[str, str]]:
    """Complete rows of an Ultralytics ``results.csv``, column name -> text; half-written rows are left out."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as f:
        rows = [{(k or "").strip(): v for k, v in row.items()} for row in csv.DictReader(f)]
    return [row for row in rows if row.get("epoch") and "" not in row and None not in row.values()]


def checkpoint_epoch(last: Path) -> int | None:
    """Last finished epoch of a checkpoint, from 0; -1 if its training has ended; None without a checkpoint.

    Raises:
        UserError: The checkpoint is damaged.
    """
    if not last.exists():
        return None
    try:
        return int(torch_load(last, map_location="cpu")["epoch"])
    except Exception as e:  # a file that was cut, or is something else: whatever the unpickler stumbles over
        raise _damaged(last, e) from e


def _damaged(checkpoint: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    stage = checkpoint.parent.parent
    return UserError(f"{checkpoint} is damaged ({reason}); remove {stage}, and that training is repeated on resume=")


def finish_checkpoint(stage_dir: Path, target: Path, *, which: str = "best") -> None:
    """Write the best, or the last, checkpoint of a stage to ``target``: a plain, stripped Ultralytics file.

    Works on a checkpoint that the trainer has stripped already and on one that a killed process left behind, whose
    distillation wrapper is removed here.

    Raises:
        UserError: The checkpoint is damaged.
    """
    chosen, last = (stage_dir / "weights" / f"{name}.pt" for name in (which, "last"))
    checkpoint = chosen if chosen.exists() else last
    with atomic_write(target) as temporary:
        strip_optimizer(checkpoint, s=str(temporary))
        if not temporary.exists():  # Ultralytics has only warned
            raise _damaged(checkpoint, ValueError("not a checkpoint of Ultralytics"))
