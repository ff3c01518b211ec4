"""The whole job against Ultralytics: equal conditions, order, what is repeated, and one real comparison of seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from dfssd.benchmark import jobs, whole
from dfssd.config import parse_arguments
from dfssd.process import COMMAND
from dfssd.trainers.clock import Clock
from tests.tiny_detection import TINY

SECONDS = {
    "setup": 1.0,
    "waiting": 2.0,
    "steps": 10.0,
    "forward": 4.0,
    "backward": 5.0,
    "optimizer": 1.0,
    "validation": 3.0,
    "writing": 0.5,
    "other": 0.5,
}
SMALL = [
    f"student={TINY}",
    f"teacher={TINY}",
    "epochs=2",
    "batch=4",
    "nbs=4",
    "imgsz=64",
    "device=cpu",
    "plots=false",
]


class FakeChild:
    """Writes what the processes leave behind, without training."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail = ""
        self.batches = 6

    def __call__(self, command: Sequence[str], log: Path) -> int:
        self.done.append(log.stem)
        if log.stem == self.fail:
            log.write_text("something\nerror: no luck\n")
            return 2
        trained: dict[str, Any] = {
            "batches": self.batches,
            "optimizer_steps": 6,
            "optimizer": "AdamW",
            "seconds": SECONDS,
        }
        if tuple(command[:3]) == COMMAND:
            given = parse_arguments(list(command[3:]))
            folder = Path(given["project"]) / given["name"]
            folder.mkdir(parents=True)
            stages = [{"name": "student", "seconds": 17.0, "status": "done"}]
            (folder / "results.json").write_text(json.dumps({"training": {"student": trained}, "stages": stages}))
            return 0
        job = json.loads(log.with_suffix(".job.json").read_text())
        ready: dict[str, Any] = {
            "data": "data.yaml",
            "splits": "s",
            "teacher": "t.pt",
            "batches_per_epoch": 3,
            "labeled": 6,
        }
        ready |= {"unlabeled": 6, "device": "cpu", "amp": False, "cpu_bf16": False, "stages": {}}
        scores: dict[str, Any] = {name: {"val": 0.5, "test": 0.4} for name in job.get("weights", ())}
        found = {"prepare": ready, "score": scores}.get(log.stem, {**trained, "weights": "best.pt"})
        Path(job["result"]).write_text(json.dumps(found))
        return 0


@pytest.fixture
def child() -> FakeChild:
    return FakeChild()


def call(tmp_path: Path, child: FakeChild, *words: str) -> int:
    given = {word.partition("=")[0] for word in words}
    usual = [word for word in ("data=demo", *SMALL) if word.partition("=")[0] not in given]
    return whole.main([*usual, f"out={tmp_path / 'out'}", *words], child=child)


def test_order_turns_and_nothing_finished_is_repeated(tmp_path: Path, child: FakeChild) -> None:
    assert call(tmp_path, child, "repeats=2") == 0
    once = ["prepare", "plain0", "ultralytics0", "ours0", "ultralytics1", "ours1", "plain1", "score"]
    assert child.done == once
    assert call(tmp_path, child, "repeats=2") == 0
    assert child.done == once
    (tmp_path / "out" / "ours1.json").unlink()
    assert call(tmp_path, child, "repeats=2") == 0
    assert child.done[len(once) :] == ["ours1", "score"]
    assert call(tmp_path, child, "repeats=3", "only=ultralytics,ours") == 0
    assert child.done[len(once) + 2 :] == ["ultralytics2", "ours2", "score"]


def test_conditions_are_equal(tmp_path: Path, child: FakeChild) -> None:
    assert call(tmp_path, child, "seed=3", "hsv_h=0.1", "labeled=0.5", "hwjs.weight=1") == 0
    told = {name: json.loads((tmp_path / "out" / f"{name}0.job.json").read_text()) for name in ("plain", "ultralytics")}
    arguments = {name: job["arguments"] for name, job in told.items()}
    assert arguments["ultralytics"].pop("distill_model") == "t.pt"
    assert arguments["ultralytics"].pop("name") == "ultralytics0"
    assert arguments["plain"].pop("name") == "plain0"
    assert arguments["plain"] == arguments["ultralytics"]
    expected = {"epochs": 2, "batch": 4, "nbs": 4, "imgsz": 64, "seed": 3, "hsv_h": 0.1, "amp": False, "patience": 2}
    assert {key: arguments["plain"][key] for key in expected} == expected
    assert not {"labeled", "hwjs.weight", "compile"} & set(arguments["plain"])
    assert all(job["all_threads"] and job["student"] == TINY for job in told.values())


def test_ours_takes_teacher_and_lists(tmp_path: Path, child: FakeChild) -> None:
    commands: list[dict[str, Any]] = []

    def watched(command: Sequence[str], log: Path) -> int:
        if tuple(command[:3]) == COMMAND:
            commands.append(parse_arguments(list(command[3:])))
        return child(command, log)

    assert whole.main(["data=demo", *SMALL, f"out={tmp_path}", "labeled=0.5", "pseudo=online"], child=watched) == 0
    [given] = commands
    assert given["data"] == "demo"
    expected = {"teacher": "t.pt", "split": "s", "baseline": False, "amp": False, "pseudo.mode": "online", "epochs": 2}
    assert {key: given[key] for key in expected} == expected
    assert "labeled" not in given


def test_a_failed_process_is_one_line_and_the_rest_is_kept(
    tmp_path: Path, child: FakeChild, capsys: pytest.CaptureFixture[str]
) -> None:
    child.fail = "ultralytics0"
    assert call(tmp_path, child) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ultralytics0: exit code 2: error: no luck")
    child.fail, child.done = "", []
    assert call(tmp_path, child) == 0
    assert child.done == ["ultralytics0", "ours0", "score"]


def test_other_steps_or_arguments_are_refused(
    tmp_path: Path, child: FakeChild, capsys: pytest.CaptureFixture[str]
) -> None:
    child.batches = 5
    assert call(tmp_path, child) == 2
    assert "made 5 steps instead of 6" in capsys.readouterr().err
    child.batches = 6
    assert call(tmp_path, child, "seed=1") == 2
    assert "was begun with another seed" in capsys.readouterr().err
    assert call(tmp_path, child) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["repeats=0"], "repeats=0"),
        (["repeats=true"], "repeats=True"),
        (["only=ous"], "did you mean 'ours'"),
        (["threads=3"], "threads=3"),
        (["name=x"], "name=x: this command sets it"),
        (["epoch=3"], "epoch"),
        (["recipe=mffmetal", "student=mffmetal-6", "teacher=mffmetal-12"], "detectors only"),
        (["recipe=ultralytics"], "distills no student"),
        (["data=none"], "data is missing"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, child: FakeChild, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path, child, *words) == 2
    assert child.done == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_help_names_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert whole.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"{key}=" in text for key in whole.OWN)


def test_summary_and_ratios_by_hand() -> None:
    """17 s: 1 + 2 + 10 + 3 + 0.5 + 0.5; the steps are 4 forward and 6 of the rest."""
    run = {"wall": 34.0, "seconds": SECONDS, "batches": 51, "optimizer_steps": 51, "optimizer": "AdamW"}
    found = whole.summary(run, batch=4)
    assert found["training"] == pytest.approx(17)
    assert found["parts"]["backward"] == pytest.approx(6)
    assert found["images_per_second"] == pytest.approx(12)
    slow = {**run, "wall": 40.0, "seconds": {**SECONDS, "waiting": 19.0}}
    done = {"ours0": run, "ultralytics0": slow, "ours1": run, "ultralytics1": run, "plain1": run, "plain2": run}
    gpu = whole.ratios(done, gpu=True)
    assert gpu["wall of ours / ultralytics"] == {"value": pytest.approx((0.85 + 1) / 2), "target": 0.4, "met": False}
    assert gpu["training of ours / ultralytics"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert gpu["wall of ours / plain"] == {"value": 1.0, "target": None, "met": None}
    assert whole.ratios(done, gpu=False)["wall of ours / ultralytics"]["target"] == 0.9
    assert whole.ratios({"ours0": run, "plain1": run}, gpu=True) == {}


def test_times_follow_the_callbacks_of_ultralytics() -> None:
    """Each event advances the time by one second; the loss is scaled after the forward pass."""
    now = [0.0]
    clock, counts = Clock(lambda: now[0]), {"batches": 0, "optimizer_steps": 0}
    callbacks: dict[str, list[Callable[[Any], object]]] = {}
    jobs.take_times(lambda event, f: callbacks.setdefault(event, []).append(f), clock, counts, all_threads=False)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    trainer = SimpleNamespace(scaler=scaler, device=torch.device("cpu"), ema=SimpleNamespace(updates=1))
    events = "on_pretrain_routine_start on_train_start on_train_epoch_start on_train_batch_start on_train_batch_end "
    events += "on_train_epoch_end on_val_start on_val_end on_fit_epoch_end on_val_start on_val_end"
    for event in events.split():
        now[0] += 1
        for callback in callbacks[event]:
            callback(trainer)
        if event == "on_train_batch_start":
            time.sleep(0.01)
            scaler.scale(torch.zeros(1))
    now[0] += 1
    seconds = clock.record()
    assert {part: seconds[part] for part in ("setup", "waiting", "steps", "validation", "writing", "other")} == {
        "setup": 1,  # to on_train_start
        "waiting": 2,  # epoch start to batch start, batch end to epoch end
        "steps": 1,
        "validation": 2,
        "writing": 2,
        "other": 3,  # from train start, before and between the validations
    }
    assert seconds["forward"] >= 0.01
    assert counts == {"batches": 1, "optimizer_steps": 1}


@pytest.mark.train
def test_a_real_comparison(
    squares: Path, teacher_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """8 labeled and 8 unlabeled images in batches of 4: 4 batches an epoch, 16 images in Ultralytics' list."""
    words = [word for word in SMALL if not word.startswith("teacher=")]
    words += [f"data={squares}", f"data_dir={tmp_path / 'imported'}", f"teacher={teacher_file}", f"out={tmp_path}"]
    words += ["only=ultralytics,ours"]
    assert whole.main(words) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["trainings"]) == {"ultralytics0", "ours0"}
    for own in result["trainings"].values():
        assert own["batches"] == own["optimizer_steps"] == 8
        assert own["optimizer"] == "AdamW"
        assert 0 < own["training"] < own["wall"]
        assert own["parts"]["forward"] > 0
        assert own["parts"]["validation"] > 0
        assert set(own["map50_95"]) == {"val", "test"}
    listed = (tmp_path / "prepared" / "splits" / "train_repeated.txt").read_text().splitlines()
    assert len(listed) == 16
    assert len(set(listed)) == 8
    assert yaml.safe_load((tmp_path / "prepared" / "data.yaml").read_text())["train"].endswith("train_repeated.txt")
    assert set(result["ratios"]) == {"wall of ours / ultralytics", "training of ours / ultralytics"}
    output = capsys.readouterr().out
    assert "ours0" in output
    assert "<= 0.90" in output
    capsys.readouterr()
    assert whole.main(words) == 0
    assert "started" not in capsys.readouterr().out
