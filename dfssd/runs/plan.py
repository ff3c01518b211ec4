"""What a run is going to do, stage by stage, and how long that takes once the speed of this machine has been measured.

Lengths are known as soon as the data is split; times are not. The cost of a stage is counted in passes: one image
through a million parameters. A training step costs three of them (forward, and twice that backward), and a teacher that
looks on one more. What a pass takes is measured while the first network is trained, and improved ever after.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table

from dfssd.runs.budget import why_longer
from dfssd.runs.length import CONVERGED_STEPS, LEAST_STEPS, optimizer_steps
from dfssd.wording import counted

if TYPE_CHECKING:
    from dfssd.runs.stages import StagedRun

STEP = 3
"""Forward passes that take as long as a training step on the same images."""


@dataclass(frozen=True)
class PlannedTraining:
    """A training of known length.

    Attributes:
        network: Name of the network, as in ``training`` of the record.
        epochs: Its length, at most.
        batches: Batches in an epoch.
        batch: Images in a batch.
        accumulate: Batches to an optimizer step, once the training is warm.
        steps: Optimizer steps, if it does not end early.
        patience: Epochs without a better score on val after which it ends; None: it runs to its end.
        cost: Passes of the whole training, validations included.
        least: Optimizer steps before which the network is not expected to find anything; 0: it starts trained, or
            nothing is known of its kind.
        length: The key that sets its epochs; empty: another one sets its batches.
        chosen: The user has given that key.
    """

    network: str
    epochs: int
    batches: int
    batch: int
    accumulate: int
    steps: int
    patience: int | None
    cost: float
    least: int = 0
    length: str = ""
    chosen: bool = False

    def with_more_steps(self, wanted: int) -> str:
        """What gives it so many optimizer steps, as it is typed."""
        ways = [f"{self.length}={math.ceil(wanted * self.accumulate / self.batches)}"] if self.length else []
        if self.accumulate > 1:
            ways.append(f"nbs={self.batch} (a step with every batch: {self.epochs * self.batches:,})")
        elif self.batch > 1:
            ways.append("a smaller batch= with an nbs= that is not larger")
        return ", or ".join(ways)


@dataclass(frozen=True)
class PlannedStage:
    """A stage before it runs.

    Attributes:
        name: Its name.
        what: What it does, in a few words.
        trainings: Its trainings, in order.
        cost: Passes of everything else.
        note: What may surprise whoever has typed the line; empty: nothing.
    """

    name: str
    what: str
    trainings: tuple[PlannedTraining, ...] = ()
    cost: float = 0.0
    note: str = ""

    @property
    def passes(self) -> float:
        """Passes of the whole stage."""
        return self.cost + sum(training.cost for training in self.trainings)

    @property
    def may_end_early(self) -> bool:
        """Whether one of its trainings has a patience."""
        return any(training.patience is not None for training in self.trainings)


def training_cost(*, images: int, epochs: int, size: float, teacher: float, val: int, val_every: int) -> float:
    """Passes of a training.

    Args:
        images: Images in an epoch.
        epochs: Epochs.
        size: Parameters of the network [millions].
        teacher: Those of a teacher that sees every image, too.
        val: Validation images.
        val_every: Epochs from one validation to the next.
    """
    return epochs * images * (STEP * size + teacher) + epochs / val_every * val * size


@dataclass
class Pace:
    """What a pass takes on this machine, as far as it has been measured.

    Attributes:
        passes: Passes done in finished work.
        seconds: What they took [s].
    """

    passes: float = 0.0
    seconds: float = 0.0

    def add(self, passes: float, seconds: float) -> None:
        """Count finished work."""
        self.passes += passes
        self.seconds += seconds

    def estimate(self, passes: float, running: tuple[float, float] = (0.0, 0.0)) -> float | None:
        """Seconds that so many passes take; None as long as nothing is known.

        Args:
            passes: What is to be done.
            running: Passes and seconds of work that is not finished.
        """
        done, seconds = self.passes + running[0], self.seconds + running[1]
        return passes * seconds / done if done > 0 and seconds > 0 else None


@dataclass(frozen=True)
class Plan:
    """All stages of a run.

    Attributes:
        stages: In order, those that do nothing left out.
        measure: What networks are compared by on val, in words.
        finished: Names of the stages that are finished already.
    """

    stages: Sequence[PlannedStage]
    measure: str
    finished: frozenset[str] = field(default_factory=frozenset)

    def after(self, name: str) -> list[PlannedStage]:
        """The stages after the one of that name that are not finished."""
        names = [stage.name for stage in self.stages]
        later = self.stages[names.index(name) + 1 :] if name in names else self.stages
        return [stage for stage in later if stage.name not in self.finished]

    def training(self, network: str) -> tuple[PlannedStage, PlannedTraining] | None:
        """The training of a network, and its stage."""
        for stage in self.stages:
            for training in stage.trainings:
                if training.network == network:
                    return stage, training
        return None

    def table(self) -> Table:
        """A line for each stage, and for each of its trainings if there are several."""
        table = Table("stage", "epochs", "batches", "optimizer steps", "", box=None, pad_edge=False)
        for column in table.columns[1:4]:
            column.justify = "right"
        for stage in self.stages:
            if stage.name in self.finished:
                table.add_row(stage.name, "", "", "", "finished")
            elif not stage.trainings:
                table.add_row(stage.name, "", "", "", stage.what)
            for training in stage.trainings if stage.name not in self.finished else ():
                several = len(stage.trainings) > 1
                table.add_row(
                    f"{stage.name}: {training.network}" if several else stage.name,
                    f"{training.epochs:,}",
                    f"{training.epochs * training.batches:,}",
                    f"{training.steps:,}",
                    f"{stage.what}{self._early(training)}",
                )
        return table

    def notes(self) -> Iterator[str]:
        """What may surprise about the plan, a line each: what stages note, and lengths that were chosen too short."""
        yield from (stage.note for stage in self._left() if stage.note)
        for alike in self._alike():
            first = alike[0]
            if not any(map(_hardly_begins, alike)) and first.chosen and first.steps < CONVERGED_STEPS:
                more = first.with_more_steps(CONVERGED_STEPS)
                yield (
                    f"{_names(alike)}: "
                    f"{counted(first.steps, 'optimizer step is', 'optimizer steps are')} too few to converge: {more}"
                )

    def warnings(self) -> Iterator[str]:
        """Trainings that are not expected to teach their network anything, a line for those of the same length."""
        for alike in self._alike():
            if short := list(filter(_hardly_begins, alike)):
                first = short[0]
                yield (
                    f"{_names(short)}: {counted(first.steps, 'optimizer step is', 'optimizer steps are')} too few to "
                    f"learn from random weights: expect a score near 0 before about {first.least:,}; "
                    f"{first.with_more_steps(first.least)}"
                )

    def _left(self) -> list[PlannedStage]:
        return [stage for stage in self.stages if stage.name not in self.finished]

    def _alike(self) -> list[list[PlannedTraining]]:
        """The trainings that are left, those of the same length together."""
        groups: dict[tuple[object, ...], list[PlannedTraining]] = {}
        for training in (training for stage in self._left() for training in stage.trainings):
            groups.setdefault((training.steps, training.accumulate, training.length), []).append(training)
        return list(groups.values())

    def _early(self, training: PlannedTraining) -> str:
        if training.patience is None:
            return ""
        return f"; ends early after {counted(training.patience, 'epoch')} without a better {self.measure} on val"

    def times(self, pace: Pace, running: tuple[float, float] = (0.0, 0.0)) -> Mapping[str, float]:
        """Seconds of each stage that is not finished and whose length is known; empty until something was measured."""
        found = {}
        for stage in self.stages:
            seconds = pace.estimate(stage.passes, running)
            if stage.name not in self.finished and stage.passes and seconds is not None:
                found[stage.name] = seconds
        return found


def _hardly_begins(training: PlannedTraining) -> bool:
    return training.steps < training.least


def _names(trainings: Sequence[PlannedTraining]) -> str:
    return " and ".join(training.network for training in trainings)


def about(seconds: float) -> str:
    """An estimated time in words: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def teacher_stages(run: StagedRun, teacher: float, *, trained: bool, untaught: bool, shown: str) -> list[PlannedStage]:
    """The stages up to a teacher that is ready.

    Args:
        run: The run.
        teacher: Parameters of the teacher [millions]; 0: there is none.
        trained: It is trained on the labels.
        untaught: It is a detector that starts from random weights then.
        shown: What it is trained on, in words.
    """
    plan = []
    if trained:
        per_epoch, budget = run.teacher_budget()
        training = planned(
            run, "teacher", teacher, untaught=untaught, batches=per_epoch, length="teacher_epochs", **budget
        )
        plan.append(PlannedStage("teacher", shown, (training,), note=why_longer(run.config, training.epochs)))
    elif teacher:
        plan.append(PlannedStage("teacher", "used as it is"))
    if (rounds := run.config["teacher_rounds"]) and run.data.train_unlabeled:
        names = [f"teacher_round{number}" for number in range(1, rounds + 1)]
        trainings = tuple(planned(run, name, teacher, taught_by=teacher) for name in names)
        plan.append(PlannedStage("self-train", "as the student will be", trainings))
    return plan


def last_stages(run: StagedRun, teacher: float, others: Sequence[float]) -> list[PlannedStage]:
    """The stages after the last training.

    Args:
        run: The run.
        teacher: Parameters of the teacher [millions]; 0: there is none.
        others: Those of all other networks that are tested.
    """
    images = run.data.test
    plan = [PlannedStage("test", counted(images, "image"), cost=images * (teacher + sum(others)))]
    if run.config["student_training"] != "skip":
        plan.append(PlannedStage("export", str(run.config["format"])))
    return [*plan, PlannedStage("report", "report.html")]


def planned(
    run: StagedRun,
    network: str,
    size: float,
    *,
    taught_by: float = 0.0,
    untaught: bool = False,
    length: str = "epochs",
    batches: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
) -> PlannedTraining:
    """A training before it begins.

    Args:
        run: The run.
        network: Its name.
        size: Parameters of the network [millions].
        taught_by: Those of a teacher that sees its images, too.
        untaught: It is a detector that starts from random weights.
        length: The key that sets its epochs; empty: another one sets its batches.
        batches: Batches in an epoch; None: as many as the student's.
        epochs: Its length; None: that of the student.
        patience: Epochs without a better score after which it ends; None: ``patience=`` of the command line.
    """
    batches, epochs = batches or run.batches_per_epoch(), epochs or run.epochs
    patience = patience or run.config.train.get("patience") or epochs
    val, every = run.data.val, run.val_every(batches, epochs)
    images = batches * run.batch
    cost = training_cost(images=images, epochs=epochs, size=size, teacher=taught_by, val=val, val_every=every)
    accumulate = max(1, round(run.nominal_batch() / run.batch))
    return PlannedTraining(
        network,
        epochs,
        batches,
        run.batch,
        accumulate,
        optimizer_steps(batches, epochs, accumulate, run.warmup_epochs()),
        patience if patience < epochs else None,
        cost,
        least=LEAST_STEPS if untaught else 0,
        length=length,
        chosen=length in run.config.given,
    )
