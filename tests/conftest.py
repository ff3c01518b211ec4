"""Shared test material: tiny synthetic data sets and models, made once; no network, no pretrained weights."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dfssd.log import console
from dfssd.process import SAFE_LOAD, trust_files
from dfssd.trust import limits
from tests.costs import CostWatch
from tests.disks import mounted
from tests.tiny_detection import save_detector

os.environ.pop("CI", None)  # commands are quiet there; tests of that set it themselves

NAMES = ["dark", "bright"]


def pytest_configure(config: pytest.Config) -> None:
    """Hold the mark ``train`` to its word."""
    config.pluginmanager.register(CostWatch())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that train come first: where processes share the work by files, the short ones fill the gaps at the end."""
    training = {item.path for item in items if item.get_closest_marker("train")}
    items.sort(key=lambda item: item.path not in training)


def write_images(folder: Path, n: int, *, seed: int, labels: bool = True, size: int = 64) -> list[Path]:
    """``n`` gray images with one dark and one bright square each, in ``folder/images`` and ``folder/labels``."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(n):
        image = rng.normal(128, 12, (size, size, 3)).clip(0, 255)
        rows = []
        for cls, gray in ((0, 20), (1, 235)):
            side = int(rng.integers(size // 5, size // 3))
            x, y = rng.integers(0, size - side, 2)
            image[y : y + side, x : x + side] = gray
            rows.append(
                f"{cls} {(x + side / 2) / size:.6f} {(y + side / 2) / size:.6f} {side / size:.6f} {side / size:.6f}"
            )
        path = folder / "images" / f"im {seed}_{k}.png"
        Image.fromarray(image.astype(np.uint8)).save(path)
        if labels:
            (folder / "labels" / f"{path.stem}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def write_squares(root: Path, *, train: int, val: int, test: int, plain: int) -> Path:
    """Ultralytics dataset YAML in ``root`` with so many images in each part; those of ``plain`` have no labels."""
    for seed, (part, n) in enumerate((("train", train), ("val", val), ("test", test)), 1):
        write_images(root / part, n, seed=seed)
    write_images(root / "plain", plain, seed=4, labels=False)
    tree = {
        "path": str(root),
        "train": "train/images",
        "val": "val/images",
        "test": "test/images",
        "unlabeled": "plain/images",
        "names": dict(enumerate(NAMES)),
    }
    (root / "data.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return root / "data.yaml"


@pytest.fixture(autouse=True)
def shown_messages():
    """What is logged is shown on the console, as by the commands, and so found by capsys."""
    with console():
        yield


@pytest.fixture(autouse=True)
def usual_files(monkeypatch: pytest.MonkeyPatch):
    """What a test lets files do ends with it: a run sets that for its process."""
    monkeypatch.setenv(SAFE_LOAD, "1")
    yield
    trust_files(False)
    limits.set_limits(None)


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test export nothing: that takes as long as a short training, and is the matter of other tests."""
    monkeypatch.setattr("dfssd.runs.stages.StagedRun.export", lambda run: "skipped")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "-o", "size=64m"):
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """Ultralytics dataset YAML with 8 labeled, 4 val, 4 test and 8 unlabeled images of two easy classes."""
    return write_squares(tmp_path_factory.mktemp("squares"), train=8, val=4, test=4, plain=8)


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory) -> Path:
    """A yolov8n with random weights that is sure of something in every image; it counts as trained."""
    return save_detector(tmp_path_factory.mktemp("teacher") / "teacher.pt", names=NAMES)
