"""What the figures of a segmentation report show, each kind drawn once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfssd.reporting.figures import COLORS, MOST_CLASSES
from dfssd.reporting.overlays import class_colors
from dfssd.results.record import FILE, MaskRecord
from dfssd.results.sections import ClassIou, Loss, Picture
from dfssd.segmentation import figures
from dfssd.segmentation.run_files import SegmentationFiles
from tests.reporting.scenarios import SCENARIOS
from tests.segmentation.material import NEU_NAMES
from tests.segmentation.recorded_run import measured, results, write_pictures, write_run


@pytest.mark.parametrize("name", ["masks-baseline-selected", "masks-no-student"])
def test_what_there_is_to_show_is_drawn(name, tmp_path):
    """All figures of a complete run are drawn by the golden reports."""
    scenario = SCENARIOS[name]()
    folder = write_run(tmp_path / "run", scenario.run.record)
    drawn = figures.draw(SegmentationFiles.read(folder))
    assert drawn == scenario.drawn
    assert {path.stem for path in (folder / "plots").iterdir()} == set(drawn)


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert figures.draw(SCENARIOS["masks-nothing-trained"]().run) == {}
    missing = tmp_path / "none.png"
    assert not figures.class_iou({}, {"student": "student"}, missing)
    assert not figures.validation({}, {"student": "student"}, missing)
    assert not figures.losses({"kd": Loss(weight=1.0, by_epoch=())}, missing)
    assert not list(tmp_path.iterdir())


def test_single_epoch_is_visible(tmp_path):
    assert figures.losses({"kd": Loss(weight=1.0, by_epoch=(0.7,))}, tmp_path / "one.png")
    wanted = np.array([int(COLORS["student"][i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(Image.open(tmp_path / "one.png").convert("RGB")).astype(int)
    assert (np.abs(pixels - wanted).max(axis=2) < 12).sum() > 10


def test_images_that_have_moved_cost_only_their_rows(tmp_path):
    folder = write_run(tmp_path / "run", results(), images=3)
    shown = MaskRecord.read(folder / FILE).pictures
    Path(shown[0].image).unlink()
    Path(shown[1].truth).write_bytes(b"no picture")
    (folder / shown[2].masks["teacher"]).unlink()
    labels = {"student": "student", "teacher": "teacher"}
    assert figures.masks(shown, NEU_NAMES, labels, folder, tmp_path / "masks.png") == 1
    shutil.rmtree(folder / "plates")
    assert figures.masks(shown, NEU_NAMES, labels, folder, tmp_path / "none.png") == 0


def test_picture_of_masks_shows_what_it_names(tmp_path):
    pictures = [Picture(**entry) for entry in write_pictures(tmp_path / "run", 9)]
    labels = {"student": "student", "teacher": "teacher", "student_trained": "student_trained"}

    def drawn(shown: list[Picture], name: str) -> np.ndarray:
        path = tmp_path / f"{name}.png"
        rows = figures.masks(shown, NEU_NAMES, labels, tmp_path / "run", path)
        assert rows == min(len(shown), figures.MOST_ROWS)
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    nine, one = drawn(pictures, "nine"), drawn(pictures[:1], "one")
    assert nine.shape[1] == one.shape[1] and nine.shape[0] > 6 * one.shape[0]
    masks = {role: file for role, file in pictures[0].masks.items() if role != "teacher"}
    without = pictures[0].model_copy(update={"masks": masks})
    assert drawn([without], "without").shape[1] < one.shape[1]  # a network without masks has no column
    for color in class_colors(4)[1:].astype(int):  # each class in the legend
        assert (np.abs(one - color).max(2) < 4).sum() > 50
    assert figures.masks([], NEU_NAMES, labels, tmp_path, tmp_path / "none.png") == 0
    assert not (tmp_path / "none.png").exists()


def test_many_classes_keep_the_largest_differences(tmp_path):
    base = measured(0.5, 1)
    new = {f"class {i}": ClassIou(iou=0.3 + 0.001 * i, pixels=3) for i in range(100)}
    old = dict.fromkeys(new, ClassIou(iou=0.3, pixels=3))
    test = {
        "student": base.model_copy(update={"per_class": {**base.per_class, **new}}),
        "baseline": base.model_copy(update={"per_class": {**base.per_class, **old}}),
    }
    assert figures.class_iou(test, {"baseline": "baseline", "student": "student"}, tmp_path / "many.png")
    assert Image.open(tmp_path / "many.png").height < 110 * (2 + MOST_CLASSES * 0.6)
