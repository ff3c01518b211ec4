"""A run is delivered as a whole, whatever happens to the service, the process, or the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dfssd.tracking.follow import FILE, PATIENCE
from dfssd.tracking.tracker import Outcome, TrackedRun
from tests.tracking.tracked_run import VERDICT, Training


class Service:
    """A service that keeps everything, and can be away."""

    def __init__(self) -> None:
        self.away = False
        self.calls = 0
        self.runs: list[TrackedRun] = []
        self.epochs: list[tuple[str, int, int]] = []
        self.outcomes: list[Outcome] = []

    def _answer(self) -> None:
        self.calls += 1
        if self.away:
            raise ConnectionError("no\n route")

    def check(self) -> None:
        raise AssertionError("checked before")

    def start(self, run: TrackedRun) -> str:
        self._answer()
        self.runs.append(run)
        return "here"

    def epoch(self, network: str, values: Mapping[str, float], step: int) -> None:
        self._answer()
        self.epochs.append((network, int(values["epoch"]), step))

    def finish(self, outcome: Outcome) -> None:
        self._answer()
        self.outcomes.append(outcome)

    def of(self, network: str) -> list[int]:
        return [epoch for name, epoch, _ in self.epochs if name == network]


class Trainer:
    """The part of a trainer that is followed: its events, its epoch and its updates."""

    def __init__(self, start_epoch: int = 0) -> None:
        self.start_epoch, self.callbacks = start_epoch, {}  # type: ignore[var-annotated]
        self.epoch, self.ema = start_epoch, SimpleNamespace(updates=0)

    def add_callback(self, event: str, callback: Any) -> None:
        self.callbacks[event] = callback

    def end_epoch(self, epoch: int, updates: int) -> None:
        self.epoch, self.ema.updates = epoch, updates
        self.callbacks["on_fit_epoch_end"](self)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_without_trackers_nothing_is_written(training: Training) -> None:
    tracking = training.tracking({})
    tracking.follow(training.config, training.record)
    tracking.watch(Trainer(), "student")
    tracking.finish(training.record, VERDICT)
    assert not (training.folder / FILE).exists()


def test_each_epoch_is_sent_once_and_the_results_at_the_end(training: Training) -> None:
    service, trainer = Service(), Trainer()
    tracking = training.tracking({"mlflow": service})
    tracking.follow(training.config, training.record)
    assert service.of("teacher") == list(range(1, 31)) and service.of("student") == [1, 2, 3]
    tracking.watch(trainer, "student")
    training.trained(4)
    trainer.end_epoch(3, updates=77)
    trainer.end_epoch(3, updates=77)  # the final validation is announced as an epoch, too
    assert service.epochs[-1] == ("student", 4, 77) and service.of("student") == [1, 2, 3, 4]
    tracking.finish(training.record, VERDICT)
    (run,), (outcome,) = service.runs, service.outcomes
    assert (run.name, run.project, run.folder) == ("mine", "plant", training.folder)
    assert outcome.status == "finished" and outcome.verdict == VERDICT
    assert outcome.values["test/student/map50_95"] == 0.412
    assert "weights/student.pt" in outcome.files


def test_later_sessions_continue_the_same_run(training: Training) -> None:
    first, second = Service(), Service()
    tracking = training.tracking({"mlflow": first})
    tracking.follow(training.config, training.record)
    tracking.stop("interrupted", training.record)
    training.trained(5)
    again = training.tracking({"mlflow": second})
    again.follow(training.config, training.record)
    assert second.runs[0].id == first.runs[0].id
    assert second.of("student") == [4, 5] and second.of("teacher") == []
    assert [outcome.status for outcome in first.outcomes] == ["interrupted"]
    late = Service()
    training.tracking({"wandb": late}).follow(training.config, training.record)
    assert late.of("student") == [1, 2, 3, 4, 5], "a tracker that joins later gets all"
    assert set(json.loads((training.folder / FILE).read_text())["sent"]) == {"mlflow", "wandb"}


def test_service_that_is_away_costs_nothing_and_misses_nothing(training: Training, capsys) -> None:
    service, now = Service(), [0.0]
    tracking = training.tracking({"mlflow": service}, clock=lambda: now[0])
    tracking.follow(training.config, training.record)
    service.away = True
    for epoch in (4, 5, 6):
        training.trained(epoch)
        tracking.follow(training.config, training.record)
    asked = service.calls
    assert service.of("student") == [1, 2, 3]
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warnings == ["warning: track=mlflow: no route; the run goes on, and what was not sent is sent later"]
    service.away, now[0] = False, PATIENCE - 1
    tracking.follow(training.config, training.record)
    assert service.calls == asked, "it is given some time"
    now[0] = PATIENCE
    tracking.follow(training.config, training.record)
    assert service.of("student") == [1, 2, 3, 4, 5, 6]


def test_what_could_not_be_sent_at_the_end_is_sent_by_the_next_session(training: Training, capsys) -> None:
    service = Service()
    service.away = True
    tracking = training.tracking({"mlflow": service})
    tracking.follow(training.config, training.record)
    tracking.finish(training.record, VERDICT)
    assert f"not all of the run was sent; dfssd resume={training.folder} sends it" in capsys.readouterr().out
    service.away = False
    again = training.tracking({"mlflow": service})
    again.follow(training.config, training.record)
    again.finish(training.record, VERDICT)
    assert service.of("student") == [1, 2, 3] and len(service.outcomes) == 1
    assert "warning" not in capsys.readouterr().out


def test_one_service_that_is_away_does_not_hold_up_another(training: Training) -> None:
    away, there = Service(), Service()
    away.away = True
    tracking = training.tracking({"mlflow": away, "wandb": there})
    tracking.follow(training.config, training.record)
    tracking.finish(training.record, VERDICT)
    assert there.of("student") == [1, 2, 3] and there.outcomes and not away.outcomes


def test_epochs_that_are_trained_again_are_sent_again(training: Training) -> None:
    service, trainer = Service(), Trainer(start_epoch=2)
    tracking = training.tracking({"mlflow": service})
    tracking.follow(training.config, training.record)
    tracking.watch(trainer, "student")
    training.trained(2)  # the row of the third epoch is dropped, since the checkpoint does not hold it
    trainer.callbacks["on_train_start"](trainer)
    training.trained(3)
    trainer.end_epoch(2, updates=50)
    assert service.of("student") == [1, 2, 3, 3]


def test_run_that_ends_before_its_data_is_known_is_not_begun(training: Training) -> None:
    service = Service()
    training.tracking({"mlflow": service}).stop("failed", training.record)
    assert service.calls == 0 and not (training.folder / FILE).exists()
