"""Copies are looked for once per data set: a second run reads neither images nor compares them."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from dfssd.datasets.copies import known
from dfssd.datasets.copies.fingerprints import describe
from dfssd.datasets.copies.known import find_copies_once, find_twins_once


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Five images; the last one repeats the first."""
    random = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(5)]
    for path in paths[:4]:
        cv2.imwrite(str(path), random.integers(0, 255, (64, 64), dtype=np.uint8))
    shutil.copy(paths[0], paths[4])
    return paths


def test_second_run_does_not_look_again(images: list[Path], tmp_path: Path, monkeypatch) -> None:
    data_dir, labeled = tmp_path / "datasets", [True] * 5
    copies, twins = find_copies_once(images, data_dir), find_twins_once(images, labeled, data_dir)
    assert copies.families[4] == copies.families[0] and len(set(copies.families)) == 4
    for name in ("describe", "find_copies", "find_twins"):
        monkeypatch.setattr(known, name, None)  # nothing is left to be done
    assert find_copies_once(images, data_dir) == copies
    assert find_twins_once(images, labeled, data_dir) == twins


def test_other_images_are_looked_at(images: list[Path], tmp_path: Path, monkeypatch) -> None:
    data_dir = tmp_path / "datasets"
    find_copies_once(images, data_dir)
    described = []

    def note(path: Path) -> bytes:
        described.append(path)
        return describe(path)

    monkeypatch.setattr(known, "describe", note)
    cv2.imwrite(str(images[4]), np.random.default_rng(1).integers(0, 255, (64, 64), dtype=np.uint8))
    assert len(set(find_copies_once(images, data_dir).families)) == 5
    assert described == [images[4]], "what is known of the others is not computed again"


def test_cut_file_is_replaced(images: list[Path], tmp_path: Path) -> None:
    data_dir = tmp_path / "datasets"
    copies = find_copies_once(images, data_dir)
    [file] = (data_dir / known.FOLDER).iterdir()
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: len(text) // 2], encoding="utf-8")
    assert find_copies_once(images, data_dir) == copies
    assert file.read_text(encoding="utf-8") == text
