"""The clock of a training: parts add up to its duration, phases to the steps, and a resume goes on counting."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from dfssd.results.sections import Seconds
from dfssd.trainers.clock import PARTS, PHASES, Clock, Phases, describe
from dfssd.trainers.stage import StageTrainer
from tests import configured
from tests.trainers.test_stages import overrides


class Time:
    """A clock on the wall that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_belongs_to_the_part_that_runs() -> None:
    wall = Time()
    clock = Clock(wall)
    wall.now += 3
    clock.switch("steps")
    wall.now += 5
    with clock.running("validation"):
        wall.now += 7
        with clock.running("writing"):
            wall.now += 11
        wall.now += 13
    wall.now += 17
    found = clock.record()
    assert {name: found[name] for name in ("setup", "steps", "validation", "writing", "waiting", "other")} == {
        "setup": 3, "steps": 22, "validation": 20, "writing": 11, "waiting": 0, "other": 0,
    }  # fmt: skip
    wall.now += 1
    assert clock.record()["steps"] == 23, "the part goes on after it was read"


def test_part_ends_with_an_error() -> None:
    wall = Time()
    clock = Clock(wall)
    with pytest.raises(KeyError), clock.running("writing"):
        wall.now += 2
        raise KeyError
    wall.now += 1
    assert clock.record()["writing"] == 2 and clock.record()["setup"] == 1


def test_events_of_the_loop_say_what_runs() -> None:
    wall = Time()
    clock = Clock(wall)

    def event(name: str, lasting: float, then: float) -> None:
        clock.before(name)
        wall.now += lasting
        clock.after(name)
        wall.now += then

    wall.now += 1
    event("on_train_start", 2, 4)  # setup 3, other 4
    event("on_train_epoch_start", 8, 16)  # other 8, waiting 16
    event("on_train_batch_start", 32, 64)  # steps 96
    event("on_train_batch_end", 128, 256)  # steps 128, waiting 256
    event("on_train_epoch_end", 512, 1024)  # other 1536
    event("on_fit_epoch_end", 2048, 4096)  # other
    found = clock.record()
    assert (found["setup"], found["waiting"], found["steps"]) == (3, 272, 224)
    assert found["other"] == 4 + 8 + 1536 + 2048 + 4096


def test_earlier_sessions_are_added_and_unknown_names_are_not() -> None:
    clock = Clock(Time())
    clock.add({"steps": 5.0, "backward": 2.0, "some other": 9.0})
    assert clock.record()["steps"] == 5 and clock.record()["backward"] == 2
    assert set(clock.record()) == {*PARTS, *PHASES} == set(Seconds.model_fields)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"))])  # fmt: skip
def test_phases_are_told_apart_with_and_without_an_update(device: str) -> None:
    phases = Phases(torch.device(device))
    phases.end("forward")  # of a validation: no step is running
    for update in (False, True):
        phases.begin()
        time.sleep(0.02)
        phases.end("forward")
        time.sleep(0.04)
        phases.end("backward")
        if update:
            time.sleep(0.06)
            phases.end("optimizer")
        phases.end("backward")  # the end of the batch
        phases.end("forward")  # of a validation
        time.sleep(0.1)
    found = phases.collect()
    expected = {"forward": 0.04, "backward": 0.08, "optimizer": 0.06}
    assert all(expected[name] <= found[name] + 1e-3 for name in PHASES)
    assert sum(found.values()) < sum(expected.values()) + 0.1, "the pause after a step belongs to no phase"
    assert phases.collect() == dict.fromkeys(PHASES, 0.0)


def test_line_names_all_parts() -> None:
    seconds = dict(zip((*PARTS, *PHASES), (1.0, 2, 30, 4, 5, 6, 10, 15, 3), strict=True))
    assert describe(seconds) == (
        "48.0 s: setup 1.0, waiting 2.0, steps 30.0 (forward 10.0, backward 15.0, optimizer 3.0), validation 4.0, "
        "writing 5.0, other 6.0"
    )


class Slow(StageTrainer):
    """Takes its time where the clock looks."""

    dies = 99

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"):
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train":
            collate = loader.collate_fn

            def slow(batch):
                time.sleep(0.03)
                return collate(batch)

            loader.collate_fn = slow
            loader.reset()
        return loader

    def write_summary(self) -> None:
        time.sleep(0.2)
        super().write_summary()

    def preprocess_batch(self, batch: dict) -> dict:
        time.sleep(0.05)
        if self.epoch == self.dies:
            raise KeyboardInterrupt
        return super().preprocess_batch(batch)


@pytest.mark.train
def test_parts_of_a_training_add_up_to_its_duration_and_go_on_after_a_resume(squares: Path, tmp_path: Path) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(4).write(stage)
    words = overrides(squares, stage, epochs=3)
    began = time.perf_counter()
    first = Slow(overrides=words)
    first.dies = 2
    with pytest.raises(KeyboardInterrupt):
        first.train()
    before = json.loads(stage.with_name("baseline.json").read_text(encoding="utf-8"))["seconds"]
    second = Slow(overrides={**words, "resume": str(stage / "weights" / "last.pt")})
    second.train()
    duration = time.perf_counter() - began
    found = json.loads(stage.with_name("baseline.json").read_text(encoding="utf-8"))["seconds"]
    Seconds.model_validate(found)
    assert all(found[name] >= before[name] for name in found)
    assert found["setup"] > before["setup"] > 0
    assert found["steps"] > before["steps"] >= 8 * 0.05 and found["steps"] >= 12 * 0.05
    assert found["waiting"] >= 12 * 0.03 and before["waiting"] < found["waiting"]
    assert found["writing"] >= 0.2 and 0 < before["validation"] < found["validation"]
    assert found["forward"] >= 12 * 0.05 and found["backward"] > 0 and found["optimizer"] > 0
    assert sum(found[name] for name in PHASES) <= found["steps"]
    parts = sum(found[name] for name in PARTS)
    assert 0.6 * duration < parts <= duration, "the last session's end and the epoch that was lost are not counted"
