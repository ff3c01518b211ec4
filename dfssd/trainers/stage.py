"""The trainer of one stage: Ultralytics' detection trainer with a fixed number of batches per epoch.

It differs from ``DetectionTrainer`` in these things only:

* an epoch is a number of batches from :class:`MixedSampler`, so that stages can be given equal budgets;
* ``last.pt`` and ``best.pt`` appear whole or not at all, written beside the training;
* a training that was interrupted goes on as if it had not been (:mod:`dfssd.trainers.resume`);
* validations and checkpoints follow every so many epochs, and the last one; a checkpoint follows the first one as well;
* bf16 mixed precision works on CPUs as well;
* the batches and optimizer steps that were really made are recorded;
* the host does not wait for the losses of every batch (:mod:`dfssd.trainers.loss_record`).
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import torch_distributed_zero_first

from dfssd.distributed import group
from dfssd.files import aside, temporary_name, write_json
from dfssd.hardware import use_all_cores
from dfssd.loading.complete import check_complete
from dfssd.loading.store import release_stores
from dfssd.log import LOGGER
from dfssd.trainers.acceleration import AcceleratedSteps
from dfssd.trainers.callbacks import FIRST, top_package, without_loggers
from dfssd.trainers.checkpoints import BackgroundWriter, Kept, KnownScore, put_in_place, write_checkpoints
from dfssd.trainers.clock import Clock
from dfssd.trainers.loss_record import RecordedLosses
from dfssd.trainers.mixed_data import MixedDataset, build_loader
from dfssd.trainers.optimizers import fused
from dfssd.trainers.results_csv import columns_of, fit_columns, read_results_csv
from dfssd.trainers.resume import FILE, ResumableSteps, WithoutState
from dfssd.trainers.sampler import MixedSampler, batch_composition
from dfssd.trainers.settings import StageSettings
from dfssd.trainers.shared import SharedTrainer
from dfssd.trainers.validation_data import KeptLoader, forget
from dfssd.trainers.validator import StageValidator
from dfssd.trust import image_caches
from dfssd.wording import counted

LEARNED = 0.02
"""Validation mAP50-95 below which a network does not find anything yet."""

LONGEST_LOSS = 60.0
"""Time after which an epoch without validation is kept as well [s]."""


class StageTrainer(ResumableSteps, AcceleratedSteps, RecordedLosses, SharedTrainer, DetectionTrainer):
    """Trains on the labeled images only: the teacher and the baseline. The student's trainer extends it."""

    last: Path
    best: Path
    settings: StageSettings
    validator: Any

    SETTINGS: type[StageSettings] = StageSettings
    SCORE = "metrics/mAP50-95(B)"
    """The score that decides the best epoch: a column of ``results.csv``."""

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict | None = None, _callbacks: dict | None = None):
        """Build the Ultralytics trainer, then read the stage settings beside its folder."""
        self.clock = Clock()
        super().__init__(cfg, overrides, _callbacks)
        if overrides and "amp" in overrides:  # a resume keeps the checkpoint's value, which another device may refuse
            self.args.amp = overrides["amp"]
        if self.args.cache == "disk":
            image_caches.keep_in(temporary_name(self.save_dir.parents[1] / "images"))
        self.settings = self.SETTINGS.read(self.save_dir)
        self.writer, self._saved_at = BackgroundWriter(), -math.inf
        self.add_callback("on_train_start", StageTrainer._use_cores)
        self.add_callback("on_train_start", StageTrainer._start_clock)
        self.prepare_resume()
        self.prepare_acceleration(self.settings.way)
        self.add_callback("on_train_epoch_start", StageTrainer._set_average)
        self.add_callback("on_train_epoch_end", StageTrainer._share_losses)

    def add_callback(self, event: str, callback: Any) -> None:
        """Add a callback once."""
        if callback not in self.callbacks[event]:
            super().add_callback(event, callback)

    def run_callbacks(self, event: str) -> None:
        """Ultralytics' callbacks; the clock learns from them which part of the training is running."""
        self.clock.before(event)
        if event == FIRST and not self.SETTINGS.read(self.save_dir).own_loggers:
            without_loggers(self.callbacks)
        if event == "on_model_save" and any(top_package(found) != "ultralytics" for found in self.callbacks[event]):
            self.writer.wait()  # a user may read it; Ultralytics' own upload takes the file that is there
        super().run_callbacks(event)
        if event == "on_train_start" and self.state is not None:
            self.load_watch_state(json.loads(self.state["watch"]))
        self.clock.after(event)
        if event == "on_train_end":
            self.write_summary()

    def optimizer_step(self) -> None:
        """Ultralytics' update of the weights, told apart by the clock."""
        with self.clock.updating():
            super().optimizer_step()
        self.note_step()

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Ultralytics' row of ``results.csv``."""
        with self.clock.running("writing"):
            super().save_metrics(fit_columns(self.csv, metrics))

    def build_train_dataset(self, labeled: Any) -> MixedDataset:
        """The training data of this stage; ``labeled`` is the dataset Ultralytics built from the labeled list."""
        return MixedDataset(labeled)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Ultralytics' loader for validation, read once; for training one with fixed composition and epoch length."""
        if mode != "train":
            loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
            check_complete(loader.dataset)
            return KeptLoader(loader, self.device)
        self.acceleration.release()  # for smaller batches, after the device ran out of memory
        self.forget_steps()
        with torch_distributed_zero_first(rank):
            dataset = self.build_train_dataset(self.build_dataset(dataset_path, mode, batch_size))
        for part in dataset.datasets:
            check_complete(part)
        labeled, unlabeled = batch_composition(batch_size, self.settings.unlabeled_share)
        world = group.world()
        joint, together = batch_composition(batch_size * world, self.settings.unlabeled_share), labeled * world
        if together != joint[0] and group.is_first():
            LOGGER.info(
                f"a batch holds {together} labeled and {counted(unlabeled * world, 'unlabeled image')}, since "
                f"{joint[0]} and {joint[1]} do not divide among {world} processes"
            )
        sampler = MixedSampler(
            dataset.n_labeled,
            len(dataset) - dataset.n_labeled,
            labeled_per_batch=labeled,
            unlabeled_per_batch=unlabeled,
            batches=self.settings.batches_per_epoch,
            seed=self.args.seed,
            rank=group.rank(),
            world=world,
        )
        sampler.epoch = self.start_epoch + self.repeats  # for a loader that is rebuilt with a smaller batch
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
        self.accelerate(batch["img"])
        return batch

    def _model_train(self) -> None:
        """Ultralytics' training mode; with ``freeze_bn`` the normalizations stay as in inference."""
        super()._model_train()
        if self.settings.freeze_bn:
            for module in self.model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def get_validator(self) -> Any:
        """Ultralytics' validator, which compares boxes on the host."""
        return StageValidator(self.test_loader, save_dir=self.save_dir, args=copy(self.args), _callbacks=self.callbacks)

    def validate(self) -> tuple:
        """Ultralytics' validation, in the precision of the training as on CUDA; no scores in an epoch without one."""
        if not self._is_validated():
            return dict.fromkeys(self.metrics or (), math.nan), None
        with self.clock.running("validation"), torch.autocast("cpu", torch.bfloat16, enabled=self.settings.cpu_bf16):
            return super().validate()

    def _is_validated(self) -> bool:
        """Whether this epoch ends with a validation: each ``val_every``-th and the last, in all processes alike."""
        every = self.settings.val_every
        if every == 1:
            return True
        now = (self.epoch + 1) % every == 0 or self.epoch + 1 >= self.epochs or self.stop
        return bool(group.from_first(now))  # only the first process knows whether it stops

    def save_model(self) -> bool:
        """Ultralytics' checkpoints of a validated epoch, and the state from which the training goes on.

        They are written beside the training under other names, and renamed. Epochs between two validations are kept
        only where they are long: a killed process repeats them. The first epoch is kept in any case, since a loss that
        is not finite later on needs a checkpoint to return to, and the last one.
        """
        self._wait_for_learning()
        moment = time.monotonic()
        last = self.epoch + 1 >= self.epochs
        if self.fitness is None and not last and moment - self._saved_at < LONGEST_LOSS:
            return False
        with self.clock.running("writing"):
            self.check_before_checkpoint()
            best, newest = Kept(), Kept()
            with self._standing_in(last=newest, best=best, optimizer=WithoutState()):
                super().save_model()
            if self.fitness is None:  # Ultralytics takes an unknown score for the best as long as none is known
                best = Kept()
            # the state last: if the process dies in between, the older one only repeats some epochs
            kept = ((self.best, best.content), (self.last, newest.content), (self.wdir / FILE, self.current_state()))
            files = {path: content for path, content in kept if content is not None}
            self.writer.start(partial(write_checkpoints, files, self.summary_file, self.summary()))
        self._saved_at = moment
        return True

    def check_before_checkpoint(self) -> None:
        """Raise :class:`UserError` if the training must not go on; called before a checkpoint is written."""

    def final_eval(self) -> None:
        """Ultralytics' final evaluation, which strips both checkpoints in place: done on copies, then renamed.

        Its validation of the best checkpoint repeats what is known from the training; it takes place only where it
        draws plots, and not on several processes, whose plots are those of the last epoch.
        """
        self.writer.wait()
        validator = self.validator
        with self.clock.running("writing"), self._checkpoints_aside():
            if not self.args.plots or group.several():
                self.validator = KnownScore(validator.args)
            try:
                super().final_eval()
            finally:
                self.validator = validator

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Ultralytics' return to ``last.pt`` after a loss or score that is not finite, once that is on the disk."""
        if not math.isfinite(self.loss.detach()) or (self.fitness is not None and not math.isfinite(self.fitness)):
            self.writer.wait()
        with self._standing_in(start_epoch=0):  # in the first epoch of a resumed training, too
            again = bool(super()._handle_nan_recovery(epoch))
        self.repeats += again
        return again

    def read_results_csv(self) -> dict[str, list[float]]:
        """The columns of ``results.csv`` for the checkpoint, as numbers also where an epoch has no score."""
        return columns_of(self.csv)

    @contextmanager
    def _checkpoints_aside(self) -> Iterator[None]:
        """Let the block work on copies of the checkpoints; rename them afterwards. All processes must enter."""
        if group.is_first():
            for path in (self.last, self.best):
                aside(path).unlink(missing_ok=True)  # of a process that died while writing it
                if path.exists():
                    shutil.copyfile(path, aside(path))
        group.wait_for_all()
        best, last = self.best, self.last
        with self._standing_in(last=aside(last), best=aside(best)):
            yield
        group.wait_for_all()
        if group.is_first():
            put_in_place(best, last)
            (self.wdir / FILE).unlink(missing_ok=True)

    @contextmanager
    def _standing_in(self, **others: Any) -> Iterator[None]:
        """Let Ultralytics find other values in attributes of the trainer while it writes its checkpoints."""
        before = {name: getattr(self, name) for name in others}
        try:
            for name, other in others.items():
                setattr(self, name, other)
            yield
        finally:
            for name, own in before.items():
                setattr(self, name, own)

    def _close_dataloader_mosaic(self) -> None:
        """Close the mosaic; the loader is then started anew, and its workers may have been an epoch ahead."""
        super()._close_dataloader_mosaic()
        self.train_loader.sampler.epoch = self.begun

    def train(self) -> None:
        """Train; what is written beside the training is on the disk afterwards."""
        try:
            super().train()
        finally:
            self.writer.join()

    @property
    def summary_file(self) -> Path:
        """Where :meth:`write_summary` writes: beside the folder of the stage, like its settings."""
        return self.save_dir.with_name(f"{self.save_dir.name}.json")

    def write_summary(self) -> None:
        """Write :meth:`summary`; done with every checkpoint, since the process may die before the last one."""
        if group.is_first():
            write_json(self.summary_file, self.summary())

    def summary(self) -> dict[str, Any]:
        """The record of this training for ``results.json`` (see docs/results.md)."""
        rows = read_results_csv(self.csv)
        scores = [_score(row.get(self.SCORE)) for row in rows]
        known = {number: score for number, score in enumerate(scores) if score is not None}
        best = max(known, key=known.__getitem__, default=None)
        return {
            "epochs": self.epochs,
            "epochs_done": len(rows),
            "batches": len(rows) * self.settings.batches_per_epoch,
            "optimizer_steps": self.ema.updates if self.ema else None,
            "batch": self.batch_size,
            "optimizer": type(self.optimizer).__name__,
            "lr0": self.args.lr0,
            "best_epoch": None if best is None else best + 1,
            "val_score": None if best is None else known[best],
            "val_score_by_epoch": scores,
            "seconds": self.clock.record(),
            "passes": self.acceleration.describe(),
        }

    @staticmethod
    def _start_clock(trainer: StageTrainer) -> None:
        """Let the clock tell the phases of the steps."""
        trainer.clock.watch(trainer.scaler, trainer.device)

    @staticmethod
    def _use_cores(trainer: StageTrainer) -> None:
        if trainer.device.type == "cpu":
            use_all_cores()

    def _wait_for_learning(self) -> None:
        """Start the patience of early stopping once the network has learned something.

        Ultralytics waits while the fitness is exactly 0. From random weights it stays just above 0 for many epochs and
        fluctuates: a lucky 0.007 would stay the best for long, and the training would stop before it has learned.
        """
        if self.stopper.best_fitness < LEARNED:
            self.stopper.best_epoch = (
                self.epoch + 2
            )  # Ultralytics counts epochs from 1; the next one is not late either

    @staticmethod
    def _set_average(trainer: StageTrainer) -> None:
        """Set the decay of the moving average, in every epoch: Ultralytics builds it anew after a NaN loss."""
        if trainer.ema and trainer.settings.average:
            trainer.ema.decay = trainer.settings.average

    @staticmethod
    def _share_losses(trainer: StageTrainer) -> None:
        """Let the means of the epoch be those over the batches of all processes."""
        trainer.losses.share(group.total, group.world())


def take_part(trainer: type[StageTrainer], arguments: dict[str, Any]) -> None:
    """Train as the first process of a run does, which keeps what comes of it.

    Args:
        trainer: Class of the trainer.
        arguments: Ultralytics' arguments.
    """
    trainer(overrides=arguments).train()


def make_room() -> None:
    """Free what this process keeps of the images of its trainings and validations, in memory and on disk."""
    release_stores()
    forget()
    image_caches.drop()


def _score(text: str | None) -> float | None:
    """A validation score of a ``results.csv``; None in an epoch without validation."""
    value = float(text or "nan")
    return None if math.isnan(value) else value
