"""Average precision of a detector on draws of the test images, against Ultralytics' own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ultralytics.utils.metrics import ap_per_class

from dfssd.evaluation.detections import Detections


def random_detections(seed: int = 0, images: int = 40, per_image: int = 30, classes: int = 4, skill: float = 0.3):
    """Detections with graded matches; the last class is never a target, class 0 is in few images."""
    random = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), per_image)
    target_image = np.repeat(np.arange(images), 3)
    target_cls = np.where(target_image < 3, 0, random.integers(1, classes - 1, len(target_image)))
    conf = random.random(len(image)).astype(np.float32)
    depth = np.where(random.random(len(image)) < skill * conf / 4, random.integers(1, 11, len(image)), 0)
    return Detections(
        tp=np.arange(10) < depth[:, None],
        conf=conf,
        pred_cls=random.integers(0, classes, len(image)),
        image=image,
        target_cls=target_cls,
        target_image=target_image,
        images=tuple(f"{k}.png" for k in range(images)),
    )


def reference(detections: Detections, draw: np.ndarray | None = None) -> dict[str, float]:
    """The scores by Ultralytics, with the rows of an image repeated as often as it was drawn."""
    draw = np.ones(len(detections.images), int) if draw is None else draw
    rows = np.repeat(np.arange(len(detections.conf)), draw[detections.image])
    targets = np.repeat(detections.target_cls, draw[detections.target_image])
    ap = ap_per_class(detections.tp[rows], detections.conf[rows], detections.pred_cls[rows], targets)[5]
    return {"map50_95": ap.mean(), "map50": ap[:, 0].mean()}


@pytest.mark.parametrize("skill", [0.05, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_map_is_that_of_ultralytics(seed, skill):
    found = random_detections(seed, skill=skill)
    scores = {name: float(value[0]) for name, value in found.scores().items()}
    assert scores == pytest.approx(reference(found), abs=1e-12) and scores["map50"] > scores["map50_95"]


def test_map_of_drawn_images_is_that_of_ultralytics_on_repeated_rows(monkeypatch):
    found = random_detections(1, skill=2.0)
    draws = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=60)
    monkeypatch.setattr("dfssd.evaluation.detections._AT_ONCE", 25 * len(found.conf))  # more than one chunk
    scores, expected = found.scores(draws), [reference(found, draw) for draw in draws]
    assert draws.max() >= 4
    for name, values in scores.items():
        assert values == pytest.approx([row[name] for row in expected], abs=1e-12)


def test_hand_worked_value():
    """One class, two true boxes: a hit, a false alarm, a hit. Precision 1 up to recall 1/2, then falling to 2/3."""
    tp = np.repeat(np.array([[True], [False], [True]]), 10, axis=1)
    ids = np.zeros(3, int)
    found = Detections(tp, np.array([0.9, 0.8, 0.7]), ids, ids, ids[:2], ids[:2], ("a.png",))
    # last point before the second hit: precision 1/2, raised to 2/3 by the envelope
    x = np.linspace(0, 1, 101)
    y = np.where(x < 0.5, 1.0, np.where(x < 1, 2 / 3, 0.0))
    for values in found.scores().values():
        assert values[0] == pytest.approx(((y[1:] + y[:-1]) / 2).mean(), abs=1e-12)


def test_no_detections_and_no_targets():
    found = random_detections()
    nothing = replace(found, tp=found.tp[:0], conf=found.conf[:0], pred_cls=found.pred_cls[:0], image=found.image[:0])
    assert nothing.scores()["map50_95"][0] == nothing.scores()["map50"][0] == 0
    empty = replace(found, target_cls=found.target_cls[:0], target_image=found.target_image[:0])
    assert np.isnan(empty.scores()["map50_95"][0]) and np.isnan(empty.scores()["map50"][0])


def test_file_gives_back_what_was_written(tmp_path: Path):
    found = random_detections()
    found.write(tmp_path / "test" / "detections.npz")
    again = Detections.read(tmp_path / "test" / "detections.npz")
    assert again.images == found.images and again.tp.shape == (1200, 10)
    for name in ("tp", "conf", "pred_cls", "image", "target_cls", "target_image"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert [p.name for p in (tmp_path / "test").iterdir()] == ["detections.npz"]
