"""What the runs of all tasks share: the stages in order, equal budgets, and one way to train.

Each stage hands on files in the run folder and a section of ``results.json``; none reaches back. A stage that is
listed in ``results.json`` is finished and is not repeated on ``resume=``; a training that was killed goes on from its
last epoch.

What an epoch is: one pass over the labeled images. Every batch of the student holds labeled and unlabeled images in
the ratio ``1 : unlabeled_ratio`` (or in the ratio of the two sets, if there are fewer unlabeled images), and the
baseline is given the same number of batches of the same size, all labeled, with the same schedule.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from dfssd.config import Config
from dfssd.evaluation.export import ExportRequest
from dfssd.evaluation.settings import EvalSettings
from dfssd.hardware import check_device, resolve_amp
from dfssd.log import LOGGER
from dfssd.results.record import BoxRecord, RunRecord, upgraded_scores
from dfssd.results.sections import Data, Distill, Status, Training
from dfssd.runs.budget import teacher_schedule
from dfssd.runs.folder import RunFolder
from dfssd.runs.model_selection import check_same_data, take_baseline
from dfssd.trainers.settings import StageSettings
from dfssd.trainers.stage import StageTrainer, checkpoint_epoch, finish_checkpoint

FEW_BATCHES = 1000
"""Below this length a training from few labels has hardly begun; the user is told."""


class StagedRun(ABC):
    """One run: the folder, its configuration, and a method per stage, called like the stage.

    Attributes:
        STAGES: Names of the stages, in order; ``self-train`` is done by the method ``self_train``.
        TRAINING: What is recorded of a training.
        record: Content of ``results.json``; each stage fills its section.
    """

    STAGES: ClassVar[tuple[str, ...]]
    TRAINING: ClassVar[type[Training]] = Training
    record: RunRecord

    def __init__(self, folder: RunFolder, config: Config):
        """Bind folder and configuration; nothing runs yet."""
        self.folder, self.config, self.record = folder, config, folder.record
        self.device = check_device(config.train.get("device"))
        self.amp, self.cpu_bf16 = resolve_amp(config.train.get("amp"), self.device)
        self.splits = folder.path / "splits"
        self.data_yaml = self.splits / "data.yaml"
        self.weights = folder.path / "weights"
        self.imgsz, self.batch, self.epochs = config.imgsz, config.batch, config.epochs

    def run(self) -> bool:
        """All stages of the task in order; a finished one is kept.

        Returns:
            Whether every check passed; False when the exported model is outside its tolerance.
        """
        for number, name in enumerate(self.STAGES):
            work: Callable[[], Status] = getattr(self, name.replace("-", "_"))
            self.folder.do(name, work, earlier=self.STAGES[:number])
        LOGGER.info(f"report: {self.folder.path / 'report.md'}")
        self.show()
        return self.passed()

    @abstractmethod
    def show(self) -> None:
        """Show the result in a few lines of the terminal."""

    def passed(self) -> bool:
        """Whether what was exported is within its tolerance, or nothing was."""
        return self.record.export is None or self.record.export.passed

    @property
    def data(self) -> Data:
        """What ``prepare``, the first stage, has found."""
        if self.record.data is None:
            raise RuntimeError("the data has not been prepared")
        return self.record.data

    @abstractmethod
    def learns_from_unlabeled(self) -> bool:
        """Whether unlabeled images teach the student anything; else they would only fill its batches."""

    def unlabeled_share(self) -> float:
        """Share of unlabeled images in a student batch: the asked ratio, at most that of the two sets."""
        if not self.learns_from_unlabeled():
            return 0.0
        ratio: float = min(self.config["unlabeled_ratio"], self.data.train_unlabeled / self.data.train_labeled)
        return ratio / (1 + ratio)

    def batches_per_epoch(self) -> int:
        """Batches in which the student passes the labeled images once."""
        from dfssd.trainers.mixed_data import batch_composition

        labeled, _ = batch_composition(self.batch, self.unlabeled_share())
        return math.ceil(self.data.train_labeled / labeled)

    def check_plan(self) -> None:
        """What can be known of the trainings as soon as the data is split.

        Raises:
            UserError: The baseline of another run is to be taken over, and does not fit this one.
        """
        if isinstance(asked := self.config["baseline"], str):
            check_same_data(Path(asked), self.folder.path, self.batches_per_epoch(), self.config)
        batches = self.batches_per_epoch() * self.epochs
        if batches < FEW_BATCHES:
            LOGGER.info(
                f"{self.epochs} epochs are {batches} batches in all, few for a network to settle: "
                f"consider epochs={math.ceil(FEW_BATCHES / self.batches_per_epoch())}"
            )

    def listed(self, part: str) -> list[Path]:
        """Images of one list of the split, such as ``val``."""
        return [Path(p) for p in (self.splits / f"{part}.txt").read_text(encoding="utf-8").splitlines() if p]

    def eval_settings(self, split: str) -> EvalSettings:
        """How a network is measured on the list ``split``."""
        return EvalSettings(self.data_yaml, split, imgsz=self.imgsz, batch=self.batch, device=self.device)

    def export_request(self) -> ExportRequest:
        """The student, to be exported and compared on the test images."""
        formats = tuple(self.config.formats)
        student, out = self.weights / "student.pt", self.weights / "student.onnx"
        return ExportRequest(student, out, formats, self.eval_settings("test"))

    def teacher_budget(self) -> tuple[int, dict[str, Any]]:
        """Batches in a pass of a teacher that is trained here, and its ``epochs`` and ``patience``."""
        per_epoch = math.ceil(self.data.train_labeled / self.batch)
        if self.config["teacher_epochs"] == "auto":
            per_epoch = max(per_epoch, self.batches_per_epoch())
        passes, patience = teacher_schedule(self.config, per_epoch)
        return per_epoch, {"epochs": passes, "patience": patience}

    def take_baseline(self, asked: str) -> Status:
        """Take over the baseline of the finished run ``asked``; the status of the stage."""
        baseline = take_baseline(Path(asked), self.folder.path, self.batches_per_epoch(), self.config)
        self.record.training = {**self.record.training, "baseline": baseline}
        return "taken over"

    def train(
        self, name: str, trainer: type[StageTrainer], settings: StageSettings, *, keep: str = "best", **overrides: Any
    ) -> None:
        """Train one stage, or go on with it, leave its plain checkpoint in ``weights/``, and record the training.

        Args:
            name: Role of the network: of its folder, its checkpoint, and its section of ``training``.
            trainer: Class of the trainer.
            settings: What it needs beyond Ultralytics' arguments.
            keep: ``best`` or ``last``.
            overrides: Ultralytics' arguments that differ from those of the configuration.
        """
        stage = self.folder.path / "train" / name
        settings.write(stage)
        last = stage / "weights" / "last.pt"
        done = checkpoint_epoch(last)
        arguments = {
            **self.config.train,
            "task": self.record.TASK,
            "mode": "train",
            "data": str(self.data_yaml),
            "device": self.device,
            "amp": self.amp,
            "save_dir": str(stage),
            "project": str(stage.parent),
            "name": name,
            "exist_ok": True,
            "batch": self.batch,
            "epochs": self.epochs,
            "patience": self.config.train.get("patience", self.epochs),
            **overrides,
        }
        if done is None or 0 <= done < arguments["epochs"] - 1:
            if done is not None:
                LOGGER.info(f"{name}: going on after epoch {done + 1}")
                arguments["resume"] = str(last)
            trainer(overrides=arguments).train()
        finish_checkpoint(stage, self.weights / f"{name}.pt", which=keep)
        training, distill = read_summary(stage.with_name(f"{name}.json"), self.TRAINING)
        if name == "student" and distill and isinstance(self.record, BoxRecord):
            self.record.distill = distill
        self.record.training = {**self.record.training, name: training}


def read_summary(file: Path, kind: type[Training]) -> tuple[Training, Distill | None]:
    """What a trainer has left beside its folder: the training, and what a student learned from its teacher.

    Args:
        file: ``train/<role>.json``; one of the version before records had a ``schema`` is read as well, since a
            training may have ended under it and its stage not.
        kind: What is recorded of a training of the task.
    """
    summary = upgraded_scores(json.loads(file.read_text(encoding="utf-8")))
    distill = summary.pop("distill", None)
    return kind.model_validate(summary), Distill.model_validate(distill) if distill else None
