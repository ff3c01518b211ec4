"""The comparison of killed runs with whole ones: what it finds, what it keeps, and its kills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dfssd.benchmark import kills
from dfssd.benchmark.kills import CASES, differences, kill_in, run_case, trainings


def write_run(run: Path, epochs: int = 3) -> Path:
    """What a run leaves, as far as it is compared."""
    stage = run / "train" / "student"
    (stage / "weights").mkdir(parents=True)
    (run / "weights").mkdir()
    (stage / "args.yaml").write_text("epochs: 3\n")
    rows = "".join(f"{n},{n / 10},0.{n}\n" for n in range(1, epochs + 1))
    (stage / "results.csv").write_text(f"epoch,time,loss\n{rows}")
    (run / "train" / "student.json").write_text(json.dumps({"seconds": {"steps": 1}, "epochs_done": epochs}))
    (run / "results.json").write_text(json.dumps({"test": {"student": {"map50": 0.5}}}))
    (run / "weights" / "student.pt").write_bytes(b"weights")
    return run


@pytest.fixture(autouse=True)
def same_bytes(monkeypatch) -> None:
    monkeypatch.setattr(kills, "_same_network", lambda a, b: a.read_bytes() == b.read_bytes())


@pytest.mark.parametrize(
    ("file", "before", "after", "found"),
    [
        ("train/student/results.csv", "2,0.2,0.2", "2,0.2,0.21", "train/student epoch 2: loss 0.2, 0.21"),
        ("train/student/results.csv", "2,0.2,0.2", "2,9.9,0.2", None),
        ("train/student.json", '"epochs_done": 3', '"epochs_done": 2', "train/student: epochs_done"),
        ("train/student.json", '"steps": 1', '"steps": 2', None),
        ("weights/student.pt", "weights", "others", "weights/student.pt: weights"),
        ("results.json", "0.5", "0.25", "results.json: test"),
    ],
)
def test_every_difference_is_found_but_that_of_time(
    tmp_path: Path, file: str, before: str, after: str, found: str | None
) -> None:
    whole, other = write_run(tmp_path / "whole"), write_run(tmp_path / "other")
    assert list(differences(whole, other)) == []
    text = (other / file).read_text()
    assert before in text
    (other / file).write_text(text.replace(before, after))
    assert list(differences(whole, other)) == ([found] if found else [])


def test_lost_epoch_is_no_equality(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        list(differences(write_run(tmp_path / "whole"), write_run(tmp_path / "other", epochs=2)))


class Process:
    """A session that makes the whole run at once, or has nothing left to do."""

    def __init__(self, run: Path, *, alive: bool):
        self.run, self.alive = run, alive
        if alive and not run.exists():
            write_run(run)
            (run / "train" / "student" / "weights" / "writing_last.pt").write_bytes(b"half")

    def is_alive(self) -> bool:
        return self.alive

    def kill(self) -> None:
        self.alive = False

    def join(self) -> None:
        """It is dead."""


class Sessions:
    """Of a run; counts them."""

    started: ClassVar[list[str]] = []

    def __init__(self, words: list[str], run: Path):
        self.run = run

    def start(self, *, alive: bool = True) -> Any:
        self.started.append(self.run.name)
        return Process(self.run, alive=alive)

    def finish(self) -> None:
        self.start()


def test_a_case_is_killed_as_planned_goes_on_and_is_compared(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(kills, "Sessions", Sessions)
    monkeypatch.setattr(Sessions, "started", [])
    result = run_case("labels-alone", tmp_path, 2, seed=0)
    assert result == {
        "case": "labels-alone",
        "kills": 2,
        "half_written": 2,
        "trainings": 1,
        "epochs": 3,
        "differences": [],
    }
    assert Sessions.started == ["whole", "killed", "killed", "killed"]
    assert capsys.readouterr().out.count("labels-alone: killed in student, epochs recorded: 3") == 2
    run_case("labels-alone", tmp_path, 2, seed=0)
    assert Sessions.started[4:] == ["killed"], "the kills are not repeated"
    (tmp_path / "labels-alone" / "killed" / "weights" / "student.pt").write_bytes(b"other")
    (tmp_path / "labels-alone" / "killed" / "train" / "student" / "weights" / "writing_last.pt").unlink()
    found = ["train/student/weights/writing_last.pt: is missing", "weights/student.pt: weights"]
    assert run_case("labels-alone", tmp_path, 2, seed=0)["differences"] == found


def test_run_that_ends_before_its_kill_is_told(tmp_path: Path) -> None:
    whole, other = write_run(tmp_path / "whole"), write_run(tmp_path / "other")
    sessions: Any = Sessions([], other)
    sessions.start = lambda: Process(other, alive=False)
    [training] = trainings(whole)
    assert kill_in(sessions, training, other / "train" / "student", 1, 0.1) is None


def test_bad_words_are_one_line(tmp_path: Path, capsys) -> None:
    assert kills.main([f"out={tmp_path}", "only=yolo"]) == 2
    assert capsys.readouterr().err == f"error: only=yolo: there are the cases {', '.join(CASES)}\n"
    assert kills.main(["--help"]) == 0 and "kills in each training" in capsys.readouterr().out
