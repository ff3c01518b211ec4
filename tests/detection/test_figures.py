"""What the figures of a detection report show, each kind drawn once."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfssd.detection import figures
from dfssd.detection.run_files import DetectionFiles
from dfssd.reporting.figures import COLORS, MOST_CLASSES
from dfssd.results.sections import ClassScores
from tests.detection.recorded_run import NAMES, measured, operated, results, write_run
from tests.reporting.records import changed
from tests.reporting.scenarios import SCENARIOS


@pytest.mark.parametrize("name", ["boxes-no-student", "boxes-moving-average", "boxes-no-pseudo-labels"])
def test_what_there_is_to_show_is_drawn(name, tmp_path):
    """``boxes-full`` is drawn by the golden reports."""
    scenario = SCENARIOS[name]()
    folder = write_run(tmp_path / "run", scenario.run.record)
    for role in {"teacher", "baseline", "student"} - set(scenario.run.record.training):
        shutil.rmtree(folder / "train" / role)
    drawn = figures.draw(DetectionFiles.read(folder))
    assert drawn == scenario.drawn
    assert {path.stem for path in (folder / "plots").iterdir()} == set(drawn)


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert figures.draw(SCENARIOS["boxes-nothing-trained"]().run) == {}
    missing = tmp_path / "none.png"
    assert not figures.loss_terms({"train/box_loss": [float("nan")]}, {}, missing)
    assert not figures.validation(results(), {}, missing)  # no curve, and none in the record
    assert not figures.precision_recall({}, missing) and not figures.class_precision({}, missing)
    assert not figures.health((), missing)
    assert not list(tmp_path.iterdir())


def test_baseline_of_another_run_is_in_the_curve(tmp_path):
    record = changed(results(), "training.baseline", val_score_by_epoch=[0.1, 0.2, 0.3])
    assert figures.validation(record, {}, tmp_path / "validation.png")
    assert count_color(tmp_path / "validation.png", COLORS["baseline"]) > 10


def test_confusion_shows_classes_that_occur(tmp_path):
    counts = np.zeros((8, 8), int)
    counts[1, 1], counts[1, 3], counts[7, 3], counts[3, 7] = 9, 2, 1, 4
    errors = operated(0.4).errors.model_copy(update={"confusion": tuple(map(tuple, counts.tolist()))})
    assert figures.confusion(errors, NAMES, tmp_path / "some.png")
    assert figures.confusion(operated(0.4).errors, NAMES, tmp_path / "all.png")
    sizes = [Image.open(tmp_path / f"{name}.png").size[0] for name in ("some", "all")]
    assert sizes[0] < sizes[1]
    nothing = errors.model_copy(update={"confusion": ((0,) * 8,) * 8})
    assert not figures.confusion(nothing, NAMES, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_gallery_shows_at_most_twelve_and_every_class(tmp_path):
    predictions = predictions_of(write_run(tmp_path / "run", results(), images=40))
    for entry in predictions["images"][:30]:  # one class crowds the front of the list
        entry["boxes"][0]["cls"] = 0
    assert figures.gallery(predictions, tmp_path / "gallery.png") == 12
    chosen = figures._varied(predictions)[:12]
    assert {box["cls"] for entry in chosen for box in entry["boxes"] if box["zone"] == "accept"} == set(range(7))
    assert len({entry["image"] for entry in figures._varied(predictions)}) == 40


def test_gallery_draws_accepted_and_ignored_but_no_background_boxes(tmp_path):
    folder = write_run(tmp_path / "run", results(), images=1)
    predictions = predictions_of(folder)
    figures.gallery(predictions, tmp_path / "both.png")
    entry = copy.deepcopy(predictions["images"][0])
    entry["boxes"][1]["zone"] = "background"
    figures.gallery({**predictions, "images": [entry]}, tmp_path / "one.png")
    both, one = (count_color(tmp_path / f"{name}.png", figures.IGNORED) for name in ("both", "one"))
    assert both > 2 * one  # in both figures the legend shows the color
    assert figures.gallery({**predictions, "images": []}, tmp_path / "none.png") == 0
    shutil.rmtree(folder / "plates")
    assert figures.gallery(predictions, tmp_path / "none.png") == 0  # the images have moved
    assert not (tmp_path / "none.png").exists()


def test_many_classes_keep_the_largest_differences(tmp_path):
    base = ClassScores(ap50_95=0.3, ap50=0.5, precision=0.5, recall=0.5, instances=3)
    new = {f"class {i}": base.model_copy(update={"ap50_95": 0.3 + 0.001 * i}) for i in range(100)}
    old = measured(0.4).per_class
    test = {
        "student": measured(0.4).model_copy(update={"per_class": {**old, **new}}),
        "baseline": measured(0.4).model_copy(update={"per_class": {**old, **dict.fromkeys(new, base)}}),
    }
    assert figures.class_precision(test, tmp_path / "many.png")
    height = Image.open(tmp_path / "many.png").height
    assert height < 110 * (2 + MOST_CLASSES * 0.6)


def test_single_epoch_is_visible(tmp_path):
    assert figures.loss_terms({"train/box_loss": [0.7]}, {}, tmp_path / "one.png")
    assert count_color(tmp_path / "one.png", COLORS["student"]) > 10


def test_half_written_curves_are_no_error(tmp_path):
    folder = write_run(tmp_path / "run", results(), images=0)
    (folder / "train" / "student" / "results.csv").write_text("epoch,time,train/box_loss\n1,2.0,nan\n2,3")
    run = DetectionFiles.read(folder)
    assert run.curves["student"].keys() == {"epoch", "time", "train/box_loss"} and run.imgsz == 96
    assert not figures.loss_terms(run.curves["student"], run.curves["baseline"], tmp_path / "none.png")


def predictions_of(folder: Path) -> dict:
    return json.loads((folder / "pseudo" / "predictions.json").read_text())


def count_color(path: Path, color: str) -> int:
    """Pixels of a picture that have this color, about."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - wanted).max(axis=2) < 12).sum())
