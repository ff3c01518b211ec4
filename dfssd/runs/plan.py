"""What a run is going to do, stage by stage, and how long that takes once the speed of this machine has been measured.

Lengths are known as soon as the data is split; times are not. The cost of a stage is counted in passes: one image
through a million parameters. A training step costs three of them (forward, and twice that backward), and a teacher that
looks on one more. What a pass takes is measured while the first network is trained, and improved ever after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table

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
        accumulate: Batches to an optimizer step, once the training is warm.
        patience: Epochs without a better score on val after which it ends; None: it runs to its end.
        cost: Passes of the whole training, validations included.
    """

    network: str
    epochs: int
    batches: int
    accumulate: int
    patience: int | None
    cost: float

    @property
    def steps(self) -> str:
        """Optimizer steps in words; those of the warm-up are shorter, so that their number is not exact."""
        steps = round(self.epochs * self.batches / self.accumulate)
        return f"{'about ' if self.accumulate > 1 else ''}{steps:,}"


@dataclass(frozen=True)
class PlannedStage:
    """A stage before it runs.

    Attributes:
        name: Its name.
        what: What it does, in a few words.
        trainings: Its trainings, in order.
        cost: Passes of everything else.
    """

    name: str
    what: str
    trainings: tuple[PlannedTraining, ...] = ()
    cost: float = 0.0

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
                    training.steps,
                    f"{stage.what}{self._early(training)}",
                )
        return table

    def _early(self, training: PlannedTraining) -> str:
        if training.patience is None:
            return ""
        return f"; ends early after {training.patience:,} epochs without a better {self.measure} on val"

    def times(self, pace: Pace, running: tuple[float, float] = (0.0, 0.0)) -> Mapping[str, float]:
        """Seconds of each stage that is not finished and whose length is known; empty until something was measured."""
        found = {}
        for stage in self.stages:
            seconds = pace.estimate(stage.passes, running)
            if stage.name not in self.finished and stage.passes and seconds is not None:
                found[stage.name] = seconds
        return found


def about(seconds: float) -> str:
    """An estimated time in words: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 10) * 10, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def teacher_stages(run: StagedRun, teacher: float, *, trained: bool, shown: str) -> list[PlannedStage]:
    """The stages up to a teacher that is ready.

    Args:
        run: The run.
        teacher: Parameters of the teacher [millions]; 0: there is none.
        trained: It is trained on the labels.
        shown: What it is trained on, in words.
    """
    plan = []
    if trained:
        per_epoch, budget = run.teacher_budget()
        plan.append(PlannedStage("teacher", shown, (planned(run, "teacher", teacher, batches=per_epoch, **budget),)))
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
    plan = [PlannedStage("test", f"{images:,} images", cost=images * (teacher + sum(others)))]
    if run.config["student_training"] != "skip":
        plan.append(PlannedStage("export", str(run.config["format"])))
    return [*plan, PlannedStage("report", "report.html")]


def planned(
    run: StagedRun,
    network: str,
    size: float,
    *,
    taught_by: float = 0.0,
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
    return PlannedTraining(network, epochs, batches, accumulate, patience if patience < epochs else None, cost)
