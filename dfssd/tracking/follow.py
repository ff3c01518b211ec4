"""Follows a run: what it has written to its folder is handed to the trackers, all of it, in every session.

Each epoch of a training is a row of its ``results.csv``. How many of these rows a tracker has been given is kept in
``tracking.json`` of the run folder, so an epoch that could not be delivered (the server was away, the process was
killed, several GPUs trained in processes of their own) follows with the next one, at the end of the training, at the
end of the run, or with ``resume=``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dfssd.config import Config
from dfssd.errors import reason
from dfssd.files import read_json, write_json
from dfssd.log import LOGGER
from dfssd.results.record import RunRecord
from dfssd.tracking import facts
from dfssd.tracking.tracker import Outcome, Status, TrackedRun, Tracker
from dfssd.trainers.results_csv import read_results_csv

if TYPE_CHECKING:
    from dfssd.trainers.stage import StageTrainer

FILE = "tracking.json"
"""Identity of the tracked run, and what has been delivered; in the run folder."""

PATIENCE = 60.0
"""Time after a failure until a tracker is tried again during the trainings [s]."""


class RunTracking:
    """A run and its trackers; without any, nothing is done and nothing is written."""

    def __init__(
        self, folder: Path, trackers: Mapping[str, Tracker], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Bind the trackers to a run folder; they are told nothing yet.

        Args:
            folder: The run folder.
            trackers: By name, checked (:func:`~dfssd.tracking.tracker.load_trackers`).
            clock: The time [s].
        """
        self._file, self._trackers, self._clock = folder / FILE, trackers, clock
        state = read_json(self._file) if trackers else {}
        self._id: str = state.get("id") or uuid.uuid4().hex
        self._steps: dict[str, dict[str, int]] = state.get("steps", {})
        self._sent: dict[str, dict[str, int]] = {name: state.get("sent", {}).get(name, {}) for name in trackers}
        self._others = {name: sent for name, sent in state.get("sent", {}).items() if name not in trackers}
        self._run: TrackedRun | None = None
        self._started: set[str] = set()
        self._warned: set[str] = set()
        self._retry_at: dict[str, float] = {}

    def follow(self, config: Config, record: RunRecord) -> None:
        """Deliver all that is new after a stage; the first one introduces the run.

        Args:
            config: The configuration of the run.
            record: Its record, with the data that was prepared.
        """
        if self._trackers and self._run is None:
            folder = self._file.parent
            project = facts.project_name(config["project"])
            self._run = TrackedRun(self._id, folder.name, project, folder, facts.parameters(config, record))
            self._save()
        self._deliver()

    def watch(self, trainer: StageTrainer, network: str) -> None:
        """Follow a training epoch by epoch."""
        if not self._trackers:
            return
        # after the trainer's own callbacks, which have dropped the rows that its checkpoint does not hold
        trainer.add_callback("on_train_start", lambda trained: self._rewind(network, trained.start_epoch))
        trainer.add_callback("on_fit_epoch_end", lambda trained: self._note(network, trained))

    def finish(self, record: RunRecord, verdict: str) -> None:
        """Deliver the rest and the results; the run is over.

        Args:
            record: Its record.
            verdict: The result in one sentence.
        """
        self._end("finished", facts.results(record), verdict)

    def stop(self, status: Status, record: RunRecord) -> None:
        """Deliver what there is of a run that ends early."""
        self._end(status, facts.results(record), "")

    def _rewind(self, network: str, epochs: int) -> None:
        """Forget what was delivered of a training after its first ``epochs``: it is continued there."""
        for counts in (*self._sent.values(), *self._others.values()):
            counts[network] = min(counts.get(network, 0), epochs)

    def _note(self, network: str, trainer: StageTrainer) -> None:
        """Note the optimizer steps after an epoch, which its row lacks, and deliver it."""
        self._steps.setdefault(network, {})[str(trainer.epoch)] = trainer.ema.updates
        self._deliver()

    def _end(self, status: Status, values: Mapping[str, float], verdict: str) -> None:
        if self._run is None:
            return
        self._retry_at.clear()
        self._deliver()
        outcome = Outcome(status, values, verdict, facts.files(self._run.folder))
        for name, tracker in self._trackers.items():
            if name in self._started:
                with self._surviving(name):
                    tracker.finish(outcome)
            if name in self._retry_at:
                LOGGER.warning(f"track={name}: not all of the run was sent; dfssd resume={self._run.folder} sends it")
        self._save()

    def _deliver(self) -> None:
        """Give every tracker the epochs that it lacks."""
        if self._run is None:
            return
        files = sorted(self._run.folder.glob("train/*/results.csv"))
        rows = {file.parent.name: read_results_csv(file) for file in files}
        for name, tracker in self._trackers.items():
            if self._clock() >= self._retry_at.get(name, 0.0):
                with self._surviving(name):
                    self._bring_up_to_date(name, tracker, rows)
        self._save()

    def _bring_up_to_date(self, name: str, tracker: Tracker, rows: Mapping[str, list[dict[str, str]]]) -> None:
        assert self._run is not None
        if name not in self._started:
            LOGGER.info(f"track={name}: {tracker.start(self._run)}")
            self._started.add(name)
        for network, epochs in rows.items():
            for number in range(self._sent[name].get(network, 0), len(epochs)):
                step = self._step(network, number, len(epochs))
                tracker.epoch(network, facts.epoch_values(epochs[number]), step)
                self._sent[name][network] = number + 1

    def _step(self, network: str, number: int, epochs: int) -> int:
        """Optimizer steps after an epoch (from 0): as noted, else an equal share of those that were recorded."""
        if (noted := self._steps.get(network, {}).get(str(number))) is not None:
            return noted
        assert self._run is not None
        summary = read_json(self._run.folder / "train" / f"{network}.json")
        done, total = summary.get("epochs_done") or epochs, summary.get("optimizer_steps") or epochs
        return round(total * (number + 1) / done)

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """Let no failure of a tracker end the run: it is warned about once, and tried again later."""
        try:
            yield
        except Exception as e:  # whatever a client raises, the training is worth more
            self._retry_at[name] = self._clock() + PATIENCE
            if name not in self._warned:
                self._warned.add(name)
                LOGGER.warning(f"track={name}: {reason(e)}; the run goes on, and what was not sent is sent later")
        else:
            self._retry_at.pop(name, None)

    def _save(self) -> None:
        write_json(self._file, {"id": self._id, "steps": self._steps, "sent": {**self._others, **self._sent}})
