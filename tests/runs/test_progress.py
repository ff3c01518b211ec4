"""What is shown of a run, with a trainer that does nothing and a clock that is set by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dfssd.results.record import BoxRecord
from dfssd.results.sections import RunFacts, Stage, Training
from dfssd.runs.plan import Plan
from dfssd.runs.progress import LINES, MEASURED, WARM, Progress
from tests.runs.test_plan import STAGES

FACTS = {
    "command": "dfssd", "dfssd": "0", "ultralytics": "0", "torch": "0", "python": "3", "machine": "x", "device": "cpu",
    "seed": 0, "recipe": "dfssd", "git": None,
}  # fmt: skip


class IdleTrainer:
    """The callbacks of a training, a second for each batch and for each validation."""

    SCORE = "score"

    def __init__(self, clock: SimpleNamespace, epochs: int, batches: int, scores: Callable[[int], float]):
        self.clock, self.epochs, self.train_loader, self.scores = clock, epochs, range(batches), scores
        self.callbacks: dict[str, list[Any]] = {}
        self.losses = SimpleNamespace(means={"box": 1.5, "hwjs": 0.25})
        self.metrics: dict[str, float] = {}
        self.epoch, self.stop = 0, False

    def add_callback(self, event: str, callback: Any) -> None:
        self.callbacks.setdefault(event, []).append(callback)

    def run(self, event: str) -> None:
        for callback in self.callbacks[event]:
            callback(self)

    def train(self, watch: Callable[[int, int], None] = lambda epoch, batch: None) -> None:
        for epoch in range(self.epochs):
            self.epoch = epoch
            self.run("on_train_epoch_start")
            for batch in self.train_loader:
                self.clock.now += 1
                self.run("on_train_batch_end")
                watch(self.epoch, batch)
            self.metrics = {"score": self.scores(self.epoch)}
            self.stop = self.epoch + 1 == self.epochs
            self.run("on_fit_epoch_end")
        self.epoch += 1
        self.run("on_fit_epoch_end")  # of the best epoch, once more


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=100.0)


@pytest.fixture
def progress(clock) -> Progress:
    return Progress(("prepare", *(stage.name for stage in STAGES), "skipped one"), "mAP", now=lambda: clock.now)


def record(*stages: Stage) -> BoxRecord:
    return BoxRecord(run=RunFacts(**FACTS), stages=stages)


def lines(capsys) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_only_stages_that_do_something_are_counted_once_there_is_a_plan(progress, capsys) -> None:
    progress.begin("prepare")
    progress.announce(Plan(STAGES, "mAP"), record())
    progress.begin("student")
    progress.begin("skipped one")
    shown = lines(capsys)
    assert shown[0] == "stage 1 prepare" and shown[-1] == "stage 5/6 student"
    assert "how long it takes is estimated after the first batches" in shown


def test_times_appear_once_and_the_line_counts_down(progress, clock, capsys) -> None:
    """200 batches, measured from the second one on, 3 passes each: the other 440 passes take 440 / 3 s."""
    progress.announce(Plan(STAGES, "mAP"), record())
    progress.begin("teacher")
    trainer = IdleTrainer(clock, epochs=40, batches=5, scores=lambda epoch: 0.1 + epoch / 100)
    seen: dict[tuple[int, int], str] = {}
    with progress.training("teacher", trainer):
        trainer.train(lambda epoch, batch: seen.update({(epoch, batch): progress.text()}))
    progress.begin("pseudo-label")
    clock.now += 3
    assert seen[0, 0] == "stage 2/6 teacher  epoch 1/40  batch 1/5  loss 1.75"
    assert seen[20, 3].split("  ")[1:] == [
        "epoch 21/40", "batch 4/5", "left: 2 min of this training, 4 min of the whole run",
        "loss 1.75", "mAP 0.290 (best 0.290)",
    ]  # fmt: skip
    assert progress.left() == pytest.approx(440 * 198 / 594 - 3)
    assert progress.text() == "stage 3/6 pseudo-label  for 3 s  left: 2 min of the whole run"
    shown = lines(capsys)
    told = [line for line in shown if line.startswith("the run takes")]
    assert told == ["the run takes about 6 min: teacher up to 3 min, pseudo-label 13 s, baseline 33 s, student 2 min"]
    assert shown.index(told[0]) == shown.index("teacher: epoch 2/40 loss 1.75 mAP 0.110 (best 0.110)") + 1


def test_a_training_leaves_few_lines_without_a_terminal(progress, clock, capsys, monkeypatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with progress.training("extra", trainer := IdleTrainer(clock, 200, 1, lambda epoch: math.nan)):
        trainer.train()
    shown = lines(capsys)
    assert len(shown) == LINES and shown[0].startswith("extra: epoch 10/200 ") and "mAP" not in shown[0]
    assert shown[-1] == "extra: epoch 200/200 loss 1.75"


@pytest.mark.parametrize(("value", "count"), [("true", 0), ("false", 2)])
def test_no_epochs_in_automatic_checks(progress, clock, capsys, monkeypatch, value: str, count: int) -> None:
    monkeypatch.setenv("CI", value)
    with progress.training("extra", trainer := IdleTrainer(clock, 2, 1, lambda epoch: 0.5)):
        trainer.train()
    assert len(lines(capsys)) == count


def test_slow_batches_are_measured_by_time(progress, clock) -> None:
    progress.announce(Plan(STAGES, "mAP"), record())
    trainer = IdleTrainer(clock, 1, WARM + MEASURED - 1, lambda epoch: 0.5)
    known = []

    def slow(epoch: int, batch: int) -> None:
        known.append(progress.left() is not None)
        clock.now += 19

    with progress.training("teacher", trainer):
        trainer.train(slow)
    assert known == [False] * (WARM + 1) + [True] * (MEASURED - 2)


def test_finished_stages_tell_the_speed_of_a_resumed_run(progress, capsys) -> None:
    """The teacher ended after half of its 40 epochs, so its 10 s are those of 300 passes."""
    done = record(Stage(name="teacher", seconds=10.0, status="done"))
    training = {"epochs": 40, "epochs_done": 20, "batches": 100, "optimizer_steps": 25, "batch": 4, "optimizer": "SGD"}
    done.training = {"teacher": _training(training)}
    progress.announce(Plan(STAGES, "mAP", finished=frozenset({"teacher"})), done)
    assert lines(capsys)[-1] == "the run takes about 15 s: pseudo-label 1 s, baseline 3 s, student 10 s"


def _training(values: dict[str, Any]) -> Training:
    more = {"lr0": 0.01, "best_epoch": 10, "val_score": 0.5, "val_score_by_epoch": [], "seconds": None, "passes": None}
    return Training.model_validate({**values, **more})
