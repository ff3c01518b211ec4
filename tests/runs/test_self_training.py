"""Self-training rounds: which teacher is built upon, which one stays, the same way again after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfssd.results.sections import SelfTraining
from dfssd.runs.self_training import self_train

VALUES = {"first": 0.30, "round 1": 0.25, "round 2": 0.35, "round 3": 0.34}


def rounds(folder: Path, number: int, built_on: list[str]) -> SelfTraining:
    def train(number: int, source: Path) -> Path:
        built_on.append(source.read_text())
        made = folder / f"teacher_round{number}.pt"
        made.write_text(f"round {number}")
        return made

    return self_train(folder, number, train=train, score=lambda file: VALUES[file.read_text()], measure="mAP50-95")


def test_each_round_starts_from_the_best_so_far_and_the_best_stays(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").write_text("first")
    built_on: list[str] = []
    found = rounds(tmp_path, 3, built_on)
    assert built_on == ["first", "first", "round 2"]
    assert found.val_score == (0.30, 0.25, 0.35, 0.34) and found.taken == 2
    assert (tmp_path / "teacher.pt").read_text() == "round 2"


def test_teacher_that_gets_worse_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "teacher.pt").write_text("first")
    assert rounds(tmp_path, 1, []).taken == 0
    assert (tmp_path / "teacher.pt").read_text() == "first"
    assert "round 1: val mAP50-95 0.250 after 0.300, not kept" in capsys.readouterr().out


def test_done_again_after_a_kill_it_starts_from_the_first_teacher(tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").write_text("first")
    found = rounds(tmp_path, 2, [])
    built_on: list[str] = []
    assert rounds(tmp_path, 2, built_on) == found and built_on == ["first", "first"]
