"""What the runs of all tasks share: the stages in order, equal budgets, and one way to train.

Each stage leaves files in the run folder and a section of ``results.json`` for the later ones. A stage listed there is
finished and is not repeated on ``resume=``; a training that was killed continues after its last epoch.

An epoch is one pass over the labeled images, or ``batches_per_epoch``. Every batch of the student holds labeled and
unlabeled images in the ratio ``1 : unlabeled_ratio`` (or in the ratio of the two sets, if there are fewer unlabeled
images), and the baseline is given the same number of batches of the same size, all labeled, with the same schedule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ultralytics.utils import DEFAULT_CFG_DICT

from dfssd.config import Config
from dfssd.deployment.facts import Facts
from dfssd.deployment.folder import FOLDER
from dfssd.distributed import crew
from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import Measured
from dfssd.evaluation.export import Comparison, ExportRequest, export_and_compare
from dfssd.evaluation.export_options import ExportOptions
from dfssd.evaluation.settings import EvalSettings
from dfssd.files import from_here
from dfssd.hardware import check_device, free_on_gpu, resolve_amp
from dfssd.log import LOGGER
from dfssd.log_file import NAME as LOG
from dfssd.log_file import join_run, logged_to, shared_log
from dfssd.results.record import BoxRecord, RunRecord
from dfssd.results.sections import PRETRAINED, Data, Export, LaterExport, Role, Status, Training
from dfssd.runs.beside import Beside
from dfssd.runs.budget import epoch_length, share_of_unlabeled, teacher_schedule, validation_interval
from dfssd.runs.folder import RunFolder
from dfssd.runs.handover import about_run, export_more, hand_over, with_sizes
from dfssd.runs.inputs import Inputs
from dfssd.runs.length import is_random
from dfssd.runs.model_selection import check_same_data, take_baseline
from dfssd.runs.plan import Plan, PlannedStage
from dfssd.runs.progress import Progress
from dfssd.runs.self_training import self_train
from dfssd.runs.summaries import read_summary
from dfssd.tracking.follow import RunTracking
from dfssd.trainers import clock
from dfssd.trainers.acceleration import EAGER, INDUCTOR
from dfssd.trainers.checkpoints import finish_checkpoint, trained_classes
from dfssd.trainers.resume import last_epoch
from dfssd.trainers.settings import AverageDecay, StageSettings
from dfssd.trainers.stage import StageTrainer, make_room, take_part

BESIDE = {"test": "export"}
"""Stage -> the later one that a process of its own computes meanwhile, where the first one needs a GPU."""

AFTER_TRAINING = "test"
"""The stage from which on nothing is trained: the images of trainings and validations make room."""

ROOM_BESIDE = 4 << 30
"""Free memory of the GPU from which a second process is started beside the first one [bytes]."""


class StagedRun(ABC):
    """One run: the folder, its configuration, and a method per stage, named after it.

    Attributes:
        STAGES: Names of the stages, in order; the stage ``self-train`` is the method ``self_train``.
        TRAINING: Type of the record of a training.
        EXPORT: Type of the record of the export.
        SCORES: Scores of a network on the test images, and what they are called, the most important one first.
        inputs: The images and labels that the stages read.
        beside: The process that computes a later stage, if there is one.
        progress: What is shown while it runs.
        tracking: What also keeps the run; nothing, until trackers are given to it.
        record: Content of ``results.json``; each stage fills its section.
    """

    STAGES: ClassVar[tuple[str, ...]]
    TRAINING: ClassVar[type[Training]] = Training
    EXPORT: ClassVar[type[Export]]
    SCORES: ClassVar[Mapping[str, str]]
    record: RunRecord

    def __init__(self, folder: RunFolder, config: Config):
        """Bind folder and configuration; nothing runs yet."""
        self.folder, self.config, self.record = folder, config, folder.record
        self.device = check_device(config.train.get("device"))
        self.amp, self.cpu_bf16 = resolve_amp(config.train.get("amp"), self.device)
        self.way = {True: INDUCTOR, False: EAGER}.get(config["compile"], config["compile"])
        self.inputs = Inputs(folder, skip_bad=config["skip_bad"])
        self.splits = folder.path / "splits"
        self.data_yaml = self.splits / "data.yaml"
        self.weights = folder.path / "weights"
        self.imgsz, self.batch, self.epochs = config.imgsz, config.batch, config.epochs
        self.beside: Beside | None = None
        self.progress = Progress(self.stages(), self.record.MEASURE)
        self.tracking = RunTracking(folder.path, {})

    def run(self) -> bool:
        """Run all stages of the task in order; finished ones are kept.

        Returns:
            Whether every check passed; False when an exported file is missing or outside its tolerance.
        """
        facts, verbose = self.record.run, bool(self.config.train.get("verbose"))
        title = f"dfssd {facts.dfssd}, ultralytics {facts.ultralytics}, torch {facts.torch}: {facts.command}"
        with logged_to(self.folder.path, title, shown=verbose), self.progress.shown():
            try:
                crew.call_others(join_run, shared_log())
                self._run_stages()
            except BaseException as e:
                self.tracking.stop("interrupted" if isinstance(e, KeyboardInterrupt) else "failed", self.record)
                raise
            finally:
                make_room()
                if self.beside:
                    self.beside.close()
            self.tracking.finish(self.record, self.verdict())
        self.show()
        self._show_files()
        return self.passed()

    def _show_files(self) -> None:
        """Name what the run leaves for its user."""
        exported = self.record.export.file if self.record.export else None
        left = {
            "report": [self.folder.path / "report.html"],
            "student": [self.weights / "student.pt", *([self.folder.path / exported] if exported else [])],
            "log": [self.folder.path / LOG],
        }
        for name, files in left.items():
            if there := [from_here(file) for file in files if file.exists()]:
                LOGGER.info(f"{name:<8} {', '.join(there)}")

    def _run_stages(self) -> None:
        stages = self.stages()
        for number, name in enumerate(stages):
            if name == AFTER_TRAINING:
                crew.call_others(make_room)
                make_room()
            work: Callable[[], Status] = getattr(self, name.replace("-", "_"))
            if not self.folder.stage(name):
                self.progress.begin(name)
            self.folder.run_stage(name, partial(self.inputs.watch, name, work), earlier=stages[:number])
            if number == 0 and not self.record.complete:
                finished = frozenset(stage.name for stage in self.record.stages)
                self.progress.announce(Plan(self.plan(), self.record.MEASURE, finished), self.record)
            self.tracking.follow(self.config, self.record)

    @abstractmethod
    def plan(self) -> Sequence[PlannedStage]:
        """What the stages after ``prepare`` are going to do; those that do nothing are left out."""

    def nominal_batch(self) -> int:
        """Images to an optimizer step, as far as they exceed a batch (``nbs=``)."""
        return int(self.config.train.get("nbs", DEFAULT_CFG_DICT["nbs"]))

    def warmup_epochs(self) -> float:
        """Epochs in which the learning rate rises (``warmup_epochs=``)."""
        return float(self.config.train.get("warmup_epochs", DEFAULT_CFG_DICT["warmup_epochs"]))

    def stages(self) -> tuple[str, ...]:
        """The stages of this run."""
        return self.STAGES

    def start_beside(self, stage: str) -> None:
        """Start the later stage that can be computed beside ``stage``, if there is a GPU with room for both.

        On a CPU it would only take the cores of ``stage``.
        """
        if (self.weights / "student.pt").exists() and free_on_gpu(self.device) >= ROOM_BESIDE:
            self.beside = Beside(self.folder.path, self.config, BESIDE[stage])

    def export(self) -> Status:
        """Export the student to ONNX, compare it with PyTorch on test images, then write the other formats."""
        self.record.export = None
        if not (self.weights / "student.pt").exists():
            return "skipped"
        section = self.beside.result() if self.beside else None
        for failure in section["failures"] if section else ():  # its log is not shown
            LOGGER.error(f"export: {failure}")
        section = with_sizes(section or self.export_section(), self.record, self.comparison(), self.imgsz)
        self.record.export = self.EXPORT.model_validate(section)
        if self.record.export.file:
            hand_over(self.folder.path, self.about(), self.record)
        return "done" if self.record.export.complete else "failed"

    def about(self) -> Facts:
        """What the files that are handed over say about themselves."""
        return about_run(self.folder.path.name, self.record, self.config.section("preprocess"))

    def export_section(self) -> dict[str, Any]:
        """Write the exported files and compare them; the section ``export`` of ``results.json``."""
        return export_and_compare(self.export_request(), task=self.record.TASK, comparison=self.comparison())

    @abstractmethod
    def comparison(self) -> Comparison:
        """How exported files are compared with the student."""

    def export_more(self, formats: Sequence[str], options: ExportOptions, settings: EvalSettings) -> LaterExport:
        """Write formats of the finished run, compared as ``settings`` say; list them in its manifest and its report.

        Raises:
            UserError: There is no student, an unknown format, or no image of the split can be read.
        """
        if not (self.weights / "student.pt").is_file():
            raise UserError(f"{self.folder.path}: the run has no weights/student.pt to export")
        part = "train_unlabeled" if self.data.train_unlabeled else "train_labeled"
        request = replace(self.export_request(), formats=tuple(formats), options=options, settings=settings)
        self.inputs.check(settings.split, part)
        done = export_more(request, self.record, self.comparison(), calibration=self.inputs.listed(part))
        self.folder.save()
        if self.record.finished:
            self.write_report(self.folder.path)
        return done

    @staticmethod
    @abstractmethod
    def write_report(folder: Path) -> None:
        """Write the report of a run folder from what is recorded there; no network is loaded.

        Raises:
            UserError: ``results.json`` is missing or broken, or the folder cannot be written to.
        """

    @staticmethod
    @abstractmethod
    def measured(folder: Path, role: Role) -> Measured | None:
        """What a network of a run folder did on each test image; None if it is not recorded."""

    @abstractmethod
    def verdict(self) -> str:
        """The result in one sentence."""

    @abstractmethod
    def show(self) -> None:
        """Print the result in a few lines."""

    def passed(self) -> bool:
        """Whether all exported files are within their tolerance; True if nothing was exported."""
        return self.record.export is None or self.record.export.complete

    @property
    def data(self) -> Data:
        """The record of ``prepare``, the first stage."""
        if self.record.data is None:
            raise RuntimeError("the data has not been prepared")
        return self.record.data

    @abstractmethod
    def learns_from_unlabeled(self) -> bool:
        """Whether the student learns from unlabeled images; if not, its batches hold none."""

    def unlabeled_share(self) -> float:
        """Share of unlabeled images in a batch of the student."""
        unlabeled = self.data.train_unlabeled if self.learns_from_unlabeled() else 0
        return share_of_unlabeled(self.config, self.data.train_labeled, unlabeled)

    def batches_per_epoch(self) -> int:
        """Batches in an epoch of the student and of the baseline."""
        return epoch_length(self.config, self.data.train_labeled, self.unlabeled_share())

    def val_every(self, batches_per_epoch: int, epochs: int) -> int:
        """Epochs from one validation to the next in a training of this length."""
        images = batches_per_epoch * self.batch
        return validation_interval(self.config, val=self.data.val, images=images, epochs=epochs)

    def average(self, start: str | Path, *, selected: bool = False) -> AverageDecay | None:
        """Decay of the moving average of a network that starts as ``start``; None: that of Ultralytics.

        ``selected``: that is a part of its teacher, which knows the classes but finds hardly anything at first.
        """
        if (most := self.config["ema_decay"]) is None:
            return None
        return AverageDecay(most, trained=not selected and set(self.data.classes) <= trained_classes(start))

    def check_plan(self) -> None:
        """Check the planned trainings as soon as the data is split.

        Raises:
            UserError: The baseline of another run is to be reused, but does not fit this one.
        """
        if isinstance(other_run := self.config["baseline"], str):
            check_same_data(Path(other_run), self.folder.path, self.batches_per_epoch(), self.config)

    def eval_settings(self, split: str, *, imgsz: int | None = None, device: str | None = None) -> EvalSettings:
        """How a network is measured on the list ``split``; size [px] and device are those of the run if not given."""
        size, place = imgsz or self.imgsz, self.device if device is None else device
        return EvalSettings(self.data_yaml, split, imgsz=size, batch=self.batch, device=place)

    def export_request(self) -> ExportRequest:
        """The export of the student, compared on the test images."""
        formats = tuple(self.config.formats)
        student, out = self.weights / "student.pt", self.weights / "student.onnx"
        deploy = self.folder.path / FOLDER
        return ExportRequest(student, out, formats, self.eval_settings("test"), deploy=deploy, about=self.about())

    def teacher_budget(self) -> tuple[int, dict[str, Any]]:
        """Batches per epoch of a teacher that is trained here, and its ``epochs`` and ``patience``."""
        per_epoch = math.ceil(self.data.train_labeled / self.batch)
        if self.config["teacher_epochs"] == "auto":
            per_epoch = max(per_epoch, self.batches_per_epoch())
        passes, patience = teacher_schedule(self.config, per_epoch)
        return per_epoch, {"epochs": passes, "patience": patience}

    def self_train(self) -> Status:
        """Train networks of the teacher's size as students of the teacher; keep whichever is best on val."""
        rounds = self.config["teacher_rounds"]
        if not rounds or not self.data.train_unlabeled:
            return "skipped"
        self.record.self_training = self_train(
            self.weights, rounds, train=self.train_round, score=self.val_score, measure=self.record.measure
        )
        return "done"

    @abstractmethod
    def train_round(self, number: int, teacher: Path) -> Path:
        """Train the network of a round of self-training as the student of ``teacher``; return its file.

        It starts as the teacher itself did, so that what it gains comes from the unlabeled images and from its teacher,
        not from more steps. Only a teacher that was trained before this run has nothing but its own weights to start
        from.
        """

    @abstractmethod
    def val_score(self, weights: Path) -> float:
        """Validation score of a network, 0 if there is nothing to measure."""

    def take_baseline(self, other_run: str) -> Collection[Role]:
        """Reuse what the finished run ``other_run`` has trained on the labels alone; return the roles that it fills."""
        taken = take_baseline(Path(other_run), self.folder.path, self.batches_per_epoch(), self.config)
        self.record.training = {**self.record.training, **taken}
        return taken

    def train(
        self, name: str, trainer: type[StageTrainer], settings: StageSettings, *, keep: str = "best", **overrides: Any
    ) -> None:
        """Train a network, or resume its training, put its plain checkpoint into ``weights/``, and record the training.

        Args:
            name: Role of the network; names its folder, its checkpoint, and its section of ``training``.
            trainer: Class of the trainer.
            settings: What it needs beyond Ultralytics' arguments.
            keep: ``best`` or ``last``.
            overrides: Ultralytics' arguments that differ from those of the configuration.
        """
        stage = self.folder.path / "train" / name
        settings.write(stage)
        done = last_epoch(stage)
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
        trained_here = done is None or done >= 0
        if trained_here:
            if done is not None:
                LOGGER.info(f"{name}: continuing after epoch {done + 1}")
                arguments["resume"] = str(stage / "weights" / "last.pt")
            with crew.shared(take_part, trainer, arguments):
                made = trainer(overrides=arguments)
                self.tracking.watch(made, name)
                with self.progress.training(name, made):
                    made.train()
        finish_checkpoint(stage, self.weights / f"{name}.pt", which=keep)
        training, distill, pretraining = read_summary(stage.with_name(f"{name}.json"), self.TRAINING)
        if training.best_epoch and training.val_score is not None:
            early = ", ended early" if training.epochs_done < training.epochs else ""
            LOGGER.info(
                f"{name}: {self.record.MEASURE} {training.val_score:.3f} on val after epoch {training.best_epoch} of "
                f"{training.epochs_done}{early}"
            )
        if trained_here and training.seconds:
            LOGGER.debug(f"{name}: {clock.describe(training.seconds.model_dump())}")
        if isinstance(self.record, BoxRecord):
            training = training.model_copy(update={"from_scratch": is_random(str(overrides["model"]))})
            if name == "student" and distill:
                self.record.distill = distill
            if pretraining:
                self.record.pretraining = {**self.record.pretraining, name.removeprefix(PRETRAINED): pretraining}
        self.record.training = {**self.record.training, name: training}
