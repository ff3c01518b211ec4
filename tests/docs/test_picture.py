"""The picture of the README: drawn from a run of the demo, small enough to be committed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_detection import save_detector, write_images

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "demo_picture.py"))


def test_committed_picture_is_small() -> None:
    picture = ROOT / "docs" / "images" / "demo.png"
    assert picture.stat().st_size < 300_000
    assert Image.open(picture).size == (1000, 430)


def test_draws_images_of_a_demo_run_and_of_no_other(script, tmp_path, capsys) -> None:
    write_images(tmp_path / "splits", 3)
    (tmp_path / "weights").mkdir()
    save_detector(tmp_path / "weights" / "student.pt")
    picture = tmp_path / "picture.png"
    for name, code in (("NEU-DET", 2), ("demo", 0)):
        (tmp_path / "results.json").write_text(json.dumps({"data": {"name": name}}))
        assert script["main"]([str(tmp_path), str(picture)]) == code
        assert picture.exists() == (name == "demo")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape == (430, 600, 3)
    green = (pixels[..., 1] > pixels[..., 0] + 60) & (pixels[..., 1] > pixels[..., 2] + 30)
    blue = (pixels[..., 2] > pixels[..., 0] + 60) & (pixels[..., 2] > pixels[..., 1] + 30)
    assert green[:215].sum() > 200 and not green[215:].any()  # ground truth above
    assert blue[215:].sum() > 200 and not blue[:215].any()  # detections below
    assert "no run of data=demo" in capsys.readouterr().err


def test_shows_as_many_classes_as_possible(script) -> None:
    rows = {"a": [0], "b": [0, 0, 0], "c": [1, 2], "d": [2, 2, 2], "e": [3], "f": []}
    truth = {name: np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in ids]).reshape(-1, 5) for name, ids in rows.items()}
    chosen = script["varied"](truth)
    assert chosen[:3] == ["c", "b", "e"] and len(chosen) == 5 and "f" not in chosen
