"""The pseudo-label stage, with teachers whose detections are known: they see the squares that are in the image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from dfssd.config.sections import PseudoSection
from dfssd.errors import UserError
from dfssd.pseudo_labels import labeling, teacher_inference
from dfssd.pseudo_labels.families import GRID
from dfssd.pseudo_labels.files import read_pseudo_labels, read_thresholds, write_pseudo_labels
from dfssd.pseudo_labels.labeling import label_images, match_to_truth
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.teacher_inference import Inference, View
from tests.configured import DEFAULTS
from tests.thresholds import class_thresholds

NAMES = ["dark", "bright"]
OPTIONS = {
    "names": NAMES, "imgsz": 416, "batch": 2, "device": "cpu",
}  # fmt: skip


def rule(**changes) -> PseudoSection:
    numbers = {"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, "ema_decay": 0.99, "iou": 0.6}
    return replace(DEFAULTS.pseudo, **{**numbers, "tta": False, "precision": None, **changes})


class Teacher:
    """Finds the rectangle of each gray value above 100; its score is that value - 100 in %; class 1 from 150 on.

    A teacher named "blind" sees nothing, and none sees anything in a size that is in ``blind_sizes``.
    """

    calls: ClassVar[list[tuple[str, int, int]]] = []
    blind_sizes: ClassVar[set[int]] = set()

    family = GRID

    def __init__(self, weights, device):
        self.name = Path(weights).stem

    @staticmethod
    def prepare(pixels, side, stretched):
        return pixels, side

    def start(self, prepared):
        self.calls.append((self.name, prepared[0][1], len(prepared)))
        return SimpleNamespace(boxes=prepared)

    def finish(self, started, shapes, *, conf, each, **_):
        assert [pixels.shape[:2] for pixels, _ in started.boxes] == list(shapes)
        return list(each(lambda prepared: self._rows(prepared[0], prepared[1], conf), started.boxes))

    def _rows(self, pixels, imgsz, conf):
        rows = []
        for value in np.unique(pixels[pixels > 100]).tolist():
            y, x = np.nonzero(pixels[..., 0] == value)
            score = (value - 100) / 100
            if score >= conf and self.name != "blind" and imgsz not in self.blind_sizes:
                rows.append([x.min(), y.min(), x.max() + 1, y.max() + 1, score, value >= 150])
        return np.array(rows, dtype=np.float32).reshape(-1, 6)


@pytest.fixture(autouse=True)
def teacher(monkeypatch):
    monkeypatch.setattr(teacher_inference, "Detector", Teacher)
    monkeypatch.setattr(Teacher, "calls", [])
    monkeypatch.setattr(Teacher, "blind_sizes", set())
    return Teacher


def draw(path: Path, *values: int, true: tuple[int, ...] = ()) -> Path:
    """A 200 x 100 image with the i-th gray value as a 16 x 20 px box from x = 10 + 20 i on; those ``true`` labeled."""
    pixels, rows = np.zeros((100, 200, 3), dtype=np.uint8), []
    for i, value in enumerate(values):
        x = 10 + 20 * i
        pixels[30:50, x : x + 16] = value
        if value in true:
            rows.append(f"{int(value >= 150)} {(x + 8) / 200:.6f} 0.4 0.08 0.2\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)
    if true:
        label = path.parents[1] / "labels" / f"{path.stem}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path) -> list[Path]:
    return [draw(tmp_path / "u" / f"{i}.png", *values) for i, values in enumerate([(145, 195), (120,), ()])]


def zones(folder: Path) -> list[list[str]]:
    return [image.zones.tolist() for image in read_pseudo_labels(folder)]


def test_one_teacher_and_one_view_are_as_ever(tmp_path, images):
    """The stage spelled out as it is without all options: detections, averages batch by batch, zones, files."""
    section = label_images(Path("one.pt"), images, tmp_path / "ours", **OPTIONS, rule=rule())
    teacher = Inference([Path("one.pt")], [View(416)], batch=2, device="cpu", conf=0.1, iou=0.6)
    seen = [look for (look,) in teacher.predict(images)]
    thresholds = class_thresholds(2)
    thresholds.update(np.array([0, 1, 0]), np.concatenate([p.scores for p in seen]))
    expected = write_pseudo_labels(tmp_path / "theirs", seen, thresholds, NAMES)
    assert section == {**expected, "settings": {"teachers": 1, "tta": False, "precision": None}}
    ours, theirs = (json.loads((tmp_path / f / "predictions.json").read_text()) for f in ("ours", "theirs"))
    assert ours == theirs
    assert section["starved"] == ["dark"] and section["mean_score"] == 0.95
    assert Teacher.calls[:2] == [("one", 416, 2), ("one", 416, 1)]


def test_views_of_one_teacher_agree_on_where_a_box_is(tmp_path, images):
    plain = label_images(Path("one.pt"), images, tmp_path / "plain", **OPTIONS, rule=rule())
    Teacher.calls.clear()
    augmented = label_images(Path("one.pt"), images, tmp_path / "tta", **OPTIONS, rule=rule(tta=True))
    assert [size for _, size, _ in Teacher.calls] == [416, 416, 352, 512] * 2
    for a, b in zip(*(read_pseudo_labels(tmp_path / f) for f in ("plain", "tta")), strict=True):
        order = np.argsort(-a.scores)  # of fusion
        assert b.boxes_xywhn == pytest.approx(a.boxes_xywhn[order], abs=2e-6)
        assert b.scores == pytest.approx(a.scores[order], abs=2e-6)
    assert augmented == {**plain, "settings": {"teachers": 1, "tta": True, "precision": None}}


def test_box_that_half_of_the_views_miss_loses_half_of_its_score(tmp_path, images):
    Teacher.blind_sizes.update({352, 512})
    label_images(Path("one.pt"), images[:2], tmp_path / "pseudo", **OPTIONS, rule=rule(tta=True))
    first, second = read_pseudo_labels(tmp_path / "pseudo")
    assert first.scores == pytest.approx([0.475, 0.225]) and first.classes.tolist() == [1, 0]
    assert second.scores == pytest.approx([0.1])


def test_teachers_are_fused_across_all_views(tmp_path, images):
    """Two that see and one that does not, in four views each: 8 of 12 looks show the box."""
    teachers = [Path("a.pt"), Path("blind.pt"), Path("b.pt")]
    section = label_images(teachers, images[:1], tmp_path / "pseudo", **OPTIONS, rule=rule(tta=True))
    assert section["settings"] == {"teachers": 3, "tta": True, "precision": None}
    assert [name for name, _, _ in Teacher.calls] == ["a"] * 4 + ["blind"] * 4 + ["b"] * 4
    assert read_pseudo_labels(tmp_path / "pseudo")[0].scores == pytest.approx([0.95 * 2 / 3, 0.3], abs=1e-6)


@pytest.fixture
def val(tmp_path) -> list[Path]:
    """Dark boxes of score 0.40 ... 0.36 that are right and of 0.20 that is not; bright ones of 0.9 that are not."""
    folder = tmp_path / "val" / "images"
    dark = [draw(folder / f"d{v}.png", v, true=(v,)) for v in (140, 139, 138, 137, 136)]
    return [*dark, draw(folder / "none.png", 120), *(draw(folder / f"b{i}.png", 190) for i in range(5))]


def test_precision_fixes_thresholds_below_tau0(tmp_path, images, val):
    """Dark: 5 of 5 down to 0.36 reach 0.9, 5 of 6 do not. Bright: never right, so the highest threshold."""
    section = label_images(Path("one.pt"), images, tmp_path / "p", **OPTIONS, rule=rule(precision=0.9), val=val)
    assert section["thresholds"] == {"dark": pytest.approx(0.36), "bright": 0.9}
    assert zones(tmp_path / "p") == [["accept", "accept"], ["ignore"], []]
    assert section["starved"] == [] and section["settings"]["precision"] == 0.9
    assert read_thresholds(tmp_path / "p").state_dict()["fixed"] == pytest.approx([0.36, 0.9])


def test_val_is_looked_at_in_the_same_way(tmp_path, images, val):
    """A second teacher that sees nothing halves the scores of both, so the threshold halves with them."""
    both = [Path("one.pt"), Path("blind.pt")]
    section = label_images(both, images, tmp_path / "p", **OPTIONS, rule=rule(precision=0.9, tta=True), val=val)
    assert section["thresholds"]["dark"] == pytest.approx(0.18)
    assert len(Teacher.calls) == 2 * 4 * (6 + 2)


def test_class_without_evidence_follows_the_average(tmp_path, images, val):
    section = label_images(Path("one.pt"), images, tmp_path / "p", **OPTIONS, rule=rule(precision=0.9), val=val[:6])
    assert section["thresholds"] == {"dark": pytest.approx(0.36), "bright": 0.9}  # the average 0.95, clipped
    assert read_thresholds(tmp_path / "p").state_dict()["fixed"] == [pytest.approx(0.36), None]
    nothing = label_images(Path("one.pt"), images, tmp_path / "p", **OPTIONS, rule=rule(precision=0.9))
    assert nothing["thresholds"] == {"dark": 0.5, "bright": 0.9}


def test_wrong_val_labels_are_an_error(tmp_path, images, val):
    (tmp_path / "val" / "labels" / "d140.txt").write_text("7 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"d140\.txt"):
        label_images(Path("one.pt"), images, tmp_path / "p", **OPTIONS, rule=rule(precision=0.9), val=val)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"precision": 0.0}, "precision=0.0"), ({"precision": 1.5}, "precision=1.5"), ({"tau0": 0.95}, "must hold")],
)
def test_wrong_settings_are_reported_before_the_teacher_starts(tmp_path, images, change, message):
    with pytest.raises(ValueError, match=message):
        label_images(Path("one.pt"), images, tmp_path / "p", **OPTIONS, rule=rule(**change))
    with pytest.raises(ValueError, match="at least one teacher"):
        label_images([], images, tmp_path / "p", **OPTIONS, rule=rule())
    assert Teacher.calls == [] and not (tmp_path / "p").exists()


def test_judge_matches_within_image_and_class():
    left, right = [0.2, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.2]

    def seen(*rows):
        return ImagePrediction(
            Path("a.jpg"), 100, 100, np.array([r[0] for r in rows], dtype=np.int64), np.array([r[1] for r in rows]),
            np.array([r[2] for r in rows]).reshape(-1, 4),
        )  # fmt: skip

    predictions = [seen((0, 0.6, left), (1, 0.9, left), (0, 0.8, left)), seen(), seen((0, 0.7, right))]
    truth = [np.array([[0, *left]]), np.array([[0, *right]]), np.array([[0, *right]])]
    classes, scores, correct = match_to_truth(predictions, truth)
    assert list(zip(classes.tolist(), scores.tolist(), correct.tolist(), strict=True)) == [
        (0, 0.6, False), (0, 0.8, True), (1, 0.9, False), (0, 0.7, True),
    ]  # fmt: skip
    assert [part.shape for part in match_to_truth([], [])] == [(0,), (0,), (0,)]
    assert labeling.MATCH_IOU == 0.5
