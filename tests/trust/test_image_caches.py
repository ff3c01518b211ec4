"""What lies beside an image does not take its place; what ``cache=disk`` keeps was made by this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.data.base import BaseDataset
from ultralytics.data.dataset import YOLODataset

from dfssd.cli import main
from dfssd.trainers.stage import make_room
from dfssd.trust import image_caches
from tests.conftest import NAMES, write_images
from tests.tiny_detection import TINY


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two images, one with another picture beside it, the other with what is none."""
    found = write_images(tmp_path / "set", 2, seed=1)
    np.save(found[0].with_suffix(".npy"), np.zeros((64, 64, 3), np.uint8))
    found[1].with_suffix(".npy").write_bytes(b"no array")
    return found


def opened(images: list[Path], **options: Any) -> YOLODataset:
    return YOLODataset(
        img_path=str(images[0].parent), imgsz=64, data={"names": dict(enumerate(NAMES)), "channels": 3}, **options
    )


def beside(images: list[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in images[0].parent.glob("*.npy")}


def test_what_lies_beside_an_image_is_not_looked_at(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before, pixels = beside(images), [cv2.imread(str(path)) for path in images]
    dataset = opened(images)
    assert all(np.array_equal(dataset.load_image(i)[0], pixels[i]) for i in (0, 1))
    assert beside(images) == before and len(before) == 2
    monkeypatch.delattr(BaseDataset, "npy_files")
    dataset = opened(images)
    assert not dataset.load_image(0)[0].any(), "left to itself, Ultralytics takes it for the image"
    dataset.load_image(1)
    assert set(beside(images)) < set(before), "and removes what it cannot read"


def test_what_is_kept_on_disk_is_of_this_process(images: list[Path], tmp_path: Path) -> None:
    before, pixels = beside(images), [cv2.imread(str(path)) for path in images]
    image_caches.keep_in(tmp_path / "run" / "kept")
    dataset = opened(images, cache="disk")
    [folder] = (tmp_path / "run").iterdir()
    kept = sorted(folder.iterdir())
    assert len(kept) == 2 and beside(images) == before
    assert all(np.array_equal(dataset.load_image(i)[0], pixels[i]) for i in (0, 1))
    for file in kept:
        np.save(file, np.full((64, 64, 3), 7, np.uint8))
    again = opened(images, cache="disk")
    assert all((again.load_image(i)[0] == 7).all() for i in (0, 1)), "they are read, by the next training, too"
    make_room()
    assert not folder.exists()
    assert np.array_equal(opened(images).load_image(0)[0], pixels[0])


@pytest.mark.train
def test_a_run_with_a_cache_on_disk_leaves_none(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    save = np.save

    def noted(file: Any, *args: Any, **options: Any) -> None:
        written.append(str(file))
        save(file, *args, **options)

    monkeypatch.setattr(np, "save", noted)
    monkeypatch.setattr("dfssd.runs.stages.StagedRun.export", lambda run: "skipped")
    words = [f"data={squares}", "recipe=baseline", "teacher=none", f"student={TINY}", "epochs=1", "imgsz=64", "batch=4"]
    words += ["device=cpu", "amp=false", "plots=false", "cache=disk", "loader=ultralytics", "workers=0", "name=run"]
    assert main([*words, f"project={tmp_path}", f"data_dir={tmp_path / 'd'}"]) == 0
    assert written and all(str(tmp_path / "run" / ".images.") in file for file in written)
    assert not list(tmp_path.rglob("*.npy")) and not list((tmp_path / "run").glob(".images*"))
