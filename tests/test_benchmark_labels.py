"""The benchmark of pseudo-labeling: its arguments, its arithmetic, and a small measurement."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfssd.benchmark import labeling
from tests.tiny_detection import TINY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine gray images in two folders, and a file that is none."""
    rng = np.random.default_rng(0)
    for i in range(9):
        file = tmp_path / "images" / str(i % 2) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    (tmp_path / "images" / "notes.txt").write_text("none", encoding="utf-8")
    return tmp_path / "images"


def test_batches_double_up_to_the_one_that_labeling_takes() -> None:
    assert labeling.batches_to_time(64) == [8, 16, 32, 64]
    assert labeling.batches_to_time(151) == [8, 16, 32, 64, 128, 151]
    assert labeling.batches_to_time(4) == [4]


def test_rates_are_medians_without_the_first_round() -> None:
    pauses = iter([0.2, 0.02, 0.02, 0.2])
    calls = []

    def function() -> int:
        time.sleep(next(pauses))
        calls.append(1)
        return 0

    rate = labeling.rates({"one": (function, 10)}, rounds=3)["one"]
    assert len(calls) == 4
    assert 200 < rate <= 10 / 0.02


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "images=None"),
        (["images=nowhere"], "images=nowhere"),
        (["images=.", "rounds=0"], "rounds=0"),
        (["images=.", "speed=1"], "speed=1: no such argument"),
    ],
)
def test_wrong_arguments_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert labeling.main(words) == 2
    assert message in capsys.readouterr().err


def test_folder_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert labeling.main([f"images={tmp_path}"]) == 2
    assert "no image there" in capsys.readouterr().err


def test_small_measurement(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"images={folder}", f"teacher={TINY}", "imgsz=64", "batch=4", "device=cpu", "rounds=1", "most=8"]
    assert labeling.main([*words, f"out={tmp_path / 'labels.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "pseudo-labels / fastest forward pass" in printed
    result = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert set(result["images_per_second"]) == {"pseudo-labels", "forward 4"}
    assert result["facts"]["images"] == 8 and result["facts"]["boxes"] > 0
    assert result["ratio"] == pytest.approx(
        result["images_per_second"]["pseudo-labels"] / result["images_per_second"]["forward 4"]
    )
