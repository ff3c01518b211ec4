"""How far a run is: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dfssd.log import LOGGER, changing_line, in_ci
from dfssd.results.record import RunRecord
from dfssd.runs.plan import Pace, Plan, PlannedTraining, about

if TYPE_CHECKING:
    from dfssd.trainers.stage import StageTrainer

MEASURED = 10
"""Batches after which the speed counts as measured."""

LONG = 30.0
"""Time after which it does so as well [s]."""

WARM = 2
"""Batches at the beginning that say nothing about the speed: kernels are chosen, caches filled."""

LINES = 20
"""Lines that a training leaves where there is no terminal, at most."""

_WIDTH = 160
"""Columns of the plan."""


class Progress:
    """The state of a run as it is shown.

    Attributes:
        plan: What is to be done; None until the data is split.
        pace: What a pass takes, by finished trainings.
        live: Whether there is a line that changes.
    """

    def __init__(self, stages: Sequence[str], measure: str, now: Callable[[], float] = time.monotonic):
        """Begin before the first stage.

        Args:
            stages: Names of all stages, in order; once there is a plan, only those that do something are counted.
            measure: What networks are compared by on val, in words.
            now: The clock [s].
        """
        self.stages, self.measure, self._now = tuple(stages), measure, now
        self.plan: Plan | None = None
        self.pace = Pace()
        self.live = False
        self._stage, self._since = "", now()
        self._training: TrainingProgress | None = None
        self._announced = False

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line during the block, where there is a terminal."""
        with changing_line(self.text) as self.live:
            try:
                yield
            finally:
                self.live = False

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._stage, self._since = stage, self._now()
        if not self.live and stage in self.stages:
            LOGGER.info(self._head())

    def announce(self, plan: Plan, record: RunRecord) -> None:
        """Show what is to be done, with the times if finished stages tell them.

        Args:
            plan: The plan.
            record: The record so far, whose finished trainings tell the speed of this machine.
        """
        self.plan = plan
        self.stages = (self.stages[0], *(stage.name for stage in plan.stages))
        for stage in plan.stages:
            done = record.stage(stage.name)
            shares = [_share_done(record, training) for training in stage.trainings]
            if done and done.status == "done" and shares:
                passes = sum(share * training.cost for share, training in zip(shares, stage.trainings, strict=True))
                self.pace.add(passes, done.seconds)
        text = io.StringIO()
        Console(file=text, width=_WIDTH, color_system=None).print(plan.table())
        LOGGER.info("plan:")
        for line in text.getvalue().splitlines():
            LOGGER.info(f"  {line.rstrip()}")
        for note in plan.notes():
            LOGGER.info(f"  {note}")
        for warning in plan.warnings():
            LOGGER.warning(warning)
        if not self._announce_times():
            LOGGER.info("  how long it takes is estimated after the first batches")

    @contextlib.contextmanager
    def training(self, network: str, trainer: StageTrainer) -> Iterator[None]:
        """Follow a training during the block.

        Args:
            network: Its name.
            trainer: The trainer, before it starts.
        """
        found = self.plan.training(network) if self.plan else None
        self._training = own = TrainingProgress(network, found[1] if found else None, self)
        own.follow(trainer)
        try:
            yield
            self.pace.add(*own.done())
        finally:
            self._training = None

    def measured(self) -> None:
        """The speed of the running training is known: tell how long the run takes, once."""
        if not self._announced:
            self._announce_times()

    def _announce_times(self) -> bool:
        """Tell what each stage takes, if that is known."""
        running = self._training.done() if self._training else (0.0, 0.0)
        times = self.plan.times(self.pace, running) if self.plan else {}
        if not self.plan or not times:
            return False
        self._announced = True
        early = {stage.name for stage in self.plan.stages if stage.may_end_early}
        each = ", ".join(f"{name} {'up to ' if name in early else ''}{about(took)}" for name, took in times.items())
        LOGGER.info(f"  the run takes about {about(sum(times.values()))}: {each}")
        return True

    def left(self) -> float | None:
        """Seconds until the run is finished, at most; None as long as that is unknown."""
        if self.plan is None:
            return None
        own = self._training
        running = own.done() if own else (0.0, 0.0)
        later = sum(stage.passes for stage in self.plan.after(self._stage))
        seconds = own.left() if own else self._rest_of_stage(self.plan)
        found = self.plan.training(own.network) if own else None
        if found:  # further trainings of the same stage
            names = [training.network for training in found[0].trainings]
            rest = found[0].trainings[names.index(found[1].network) + 1 :]
            later += sum(training.cost for training in rest)
        after = self.pace.estimate(later, running) if later else 0.0
        return None if seconds is None or after is None else seconds + after

    def _rest_of_stage(self, plan: Plan) -> float:
        """Seconds until a stage that trains nothing is finished, as far as that is known."""
        passes = sum(stage.cost for stage in plan.stages if stage.name == self._stage)
        return max(0.0, (self.pace.estimate(passes) or 0.0) - (self._now() - self._since))

    def text(self) -> str:
        """The line: stage, what it has reached, and the time left."""
        training = self._training  # the line is drawn by a thread of its own, and the training may end meanwhile
        if training:
            return f"{self._head()}  {training.text()}"
        return "  ".join([self._head(), f"for {about(self._now() - self._since)}", *self.left_in_words(None)])

    def left_in_words(self, training: float | None) -> list[str]:
        """``left: 6 s of this training, 3 min of the whole run``, with what is known.

        Args:
            training: Seconds until the training is finished; None if that is unknown, or nothing is trained.
        """
        known = {"this training": training, "the whole run": self.left()}
        words = [f"{about(seconds)} of {what}" for what, seconds in known.items() if seconds]
        return [f"left: {', '.join(words)}"] if words else []

    def _head(self) -> str:
        number = self.stages.index(self._stage) + 1 if self._stage in self.stages else 0
        of_all = f"/{len(self.stages)}" if self.plan else ""  # which ones have anything to do is known with the plan
        return f"stage {number}{of_all} {self._stage}"


class TrainingProgress:
    """How far a training is.

    The callbacks only note numbers, since they run between the batches.

    Attributes:
        network: Name of the network.
    """

    def __init__(self, network: str, planned: PlannedTraining | None, run: Progress):
        """Begin before the first batch."""
        self.network, self._planned, self._run = network, planned, run
        self._trainer: Any = None
        self._epoch = self._batch = self._batches = 0
        self._epochs = self._per_epoch = 1
        self._from: tuple[float, float] | None = None
        self._loss = self._score = math.nan
        self._best = -math.inf

    def follow(self, trainer: StageTrainer) -> None:
        """Learn from the callbacks of a trainer."""
        self._trainer, self._epochs = trainer, trainer.epochs
        trainer.add_callback("on_train_epoch_start", self._start_epoch)
        trainer.add_callback("on_train_batch_end", self._end_batch)
        trainer.add_callback("on_fit_epoch_end", self._end_epoch)

    def _start_epoch(self, trainer: StageTrainer) -> None:
        self._epoch, self._batch = trainer.epoch, 0
        self._epochs, self._per_epoch = trainer.epochs, len(trainer.train_loader)

    def _end_batch(self, _: StageTrainer) -> None:
        self._batch += 1
        self._batches += 1
        if self._batches == WARM:
            self._from = (self.reached(), self._run._now())
        elif self.is_measured():
            self._run.measured()

    def _end_epoch(self, trainer: StageTrainer) -> None:
        if not self._batch:  # Ultralytics reports once more about the best epoch, after the last one
            return
        self._judge(float(trainer.metrics.get(trainer.SCORE, math.nan)))
        every = math.ceil(self._epochs / LINES)
        if not self._run.live and not in_ci() and ((self._epoch + 1) % every == 0 or trainer.stop):
            LOGGER.info(f"{self.network}: {self.text()}")
        self._epoch, self._batch = self._epoch + 1, 0

    def _judge(self, score: float) -> None:
        """Keep the last score, and the best; an epoch without validation has none."""
        if not math.isnan(score):
            self._score, self._best = score, max(self._best, score)

    def reached(self) -> float:
        """Share of the planned training that is done, [0, 1]."""
        return min(1.0, (self._epoch + self._batch / self._per_epoch) / max(1, self._epochs))

    def is_measured(self) -> bool:
        """Whether the speed of this training is known."""
        if self._from is None or self.reached() <= self._from[0]:
            return False
        return self._batches >= WARM + MEASURED or self._run._now() - self._from[1] >= LONG

    def done(self) -> tuple[float, float]:
        """Passes and seconds of this session, its first batches left out."""
        if self._from is None or self._planned is None:
            return 0.0, 0.0
        return (self.reached() - self._from[0]) * self._planned.cost, self._run._now() - self._from[1]

    def left(self) -> float | None:
        """Seconds that it takes until its last epoch; None as long as that is unknown."""
        if self._from is None or not self.is_measured():
            return None
        reached = self.reached()
        return (1 - reached) * (self._run._now() - self._from[1]) / (reached - self._from[0])

    def text(self) -> str:
        """Epoch, batch, loss, validation score, and the time left."""
        reached = self.reached()
        within = 0 < self._batch < self._per_epoch
        parts = [f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}"]
        if within:
            parts.append(f"batch {self._batch}/{self._per_epoch}")
        left = self.left()
        if left is None and self._run.live:
            parts.append("left: estimated after the first batches")
        elif reached < 1:
            parts += self._run.left_in_words(left)
        if self._batch:
            self._loss = sum(self._trainer.losses.means.values())
        if not math.isnan(self._loss):
            parts.append(f"loss {self._loss:.3g}")
        if self._best > -math.inf:
            parts.append(f"{self._run.measure} {self._score:.3f} (best {self._best:.3f})")
        return "  ".join(parts)


def _share_done(record: RunRecord, training: PlannedTraining) -> float:
    """Share of a planned training that was needed, [0, 1]; early stopping may have ended it."""
    done = record.training.get(training.network)
    return min(1.0, done.epochs_done / training.epochs) if done else 0.0
