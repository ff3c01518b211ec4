"""Where the trainings of a detector start: at the given weights, or at what was learned from images alone."""

from __future__ import annotations

import math
from pathlib import Path

from dfssd.detection.checks import has_teacher, must_train_teacher
from dfssd.distillation.compatibility import resolve_weights
from dfssd.distillation.selection import write_selected
from dfssd.log import LOGGER
from dfssd.results.record import BoxRecord
from dfssd.results.sections import PRETRAINED, Role, Start, Status
from dfssd.runs.model_selection import from_scratch, take_pretrained
from dfssd.runs.stages import StagedRun
from dfssd.trainers.settings import PretrainSettings, StageSettings


class StartingWeights(StagedRun):
    """The part of a detector's run with the stage ``pretrain``."""

    record: BoxRecord

    def stages(self) -> tuple[str, ...]:
        """The stages of this run; ``pretrain`` only where it is asked for: runs of earlier versions have none."""
        return tuple(name for name in self.STAGES if name != "pretrain" or self.config["pretrain"])

    def pretrain(self) -> Status:
        """Let teacher and student learn from all training images, without labels; each later training starts there.

        A teacher that is used as it is has learned already. With the baseline of a run that was pretrained alike its
        student is taken over, too: both must start from the same weights.
        """
        self.record.pretraining = {}
        other_run = self.config["baseline"]
        student_taken = isinstance(other_run, str) and not from_scratch(Path(other_run), self.config)
        if student_taken:
            take_pretrained(Path(other_run), self.weights, self.record)
        else:
            self._learn_from_images("student")
        teacher_learns = has_teacher(self.config) and must_train_teacher(self.config, self.data.classes)
        if teacher_learns:
            self._learn_from_images("teacher")
        return "taken over" if student_taken and not teacher_learns else "done"

    def _learn_from_images(self, role: Role) -> None:
        from dfssd.pretraining.images import write_images
        from dfssd.pretraining.trainer import trainer_of

        source = resolve_weights(self.config[role], role)
        per_epoch, batches = self.batches_per_epoch(), self.config["pretrain_batches"]
        settings = PretrainSettings(
            **vars(self.labels_alone(source, per_epoch, self.epochs)), method=self.config["pretrain"]
        )
        images = self.folder.path / "train" / "images.yaml"
        write_images(images, [self.splits / f"{part}.txt" for part in ("train_labeled", "train_unlabeled")])
        self.train(
            f"{PRETRAINED}{role}",
            trainer_of(self.config["pretrain"]),
            settings,
            model=source,
            data=str(images),
            epochs=self.epochs if batches == "auto" else math.ceil(batches / per_epoch),
            freeze=None,  # what later trainings leave as it is has to be learned here
            plots=False,
        )

    def start(self, role: Role) -> str:
        """The weights or the architecture that the training of ``teacher`` or ``student`` starts from."""
        if self.config["pretrain"]:
            return str(self.weights / f"{PRETRAINED}{role}.pt")
        return resolve_weights(self.config[role], role)

    def distilled_start(self) -> tuple[str, Start]:
        """The file that the distilled student starts from, and whose weights these are."""
        own, wanted = self.start("student"), self.config["student_start"]
        if wanted == "own" or not has_teacher(self.config) or (wanted == "auto" and own.endswith(".pt")):
            return own, "own"
        file = self.weights / "student_start.pt"
        if not write_selected(self.weights / "teacher.pt", own, file, self.config.seed):
            return own, "own"
        LOGGER.info("the student starts at a part of its teacher's weights (weight selection)")
        return str(file), "teacher"

    def labels_alone(self, start: str, batches_per_epoch: int, epochs: int, *, selected: bool = False) -> StageSettings:
        """Settings of a training on the labeled images only, of ``start``; ``selected``: a part of its teacher."""
        every = self.val_every(batches_per_epoch, epochs)
        loader = self.config["loader"]
        return StageSettings.labels_alone(
            batches_per_epoch,
            cpu_bf16=self.cpu_bf16,
            loader=loader,
            val_every=every,
            way=self.way,
            average=self.average(start, selected=selected),
            own_loggers=not self.config.trackers,
        )
