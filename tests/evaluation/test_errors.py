"""Kinds of errors, the confusion matrix, and recall by size, on boxes laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.evaluation import errors as kinds
from dfssd.evaluation.detections import Detections, Places
from dfssd.evaluation.errors import errors, match, recall_by_size

SIDE = 100
"""Images are squares of this side [px]."""


def detections(
    found: list[tuple], true: list[tuple], images: int = 1, shape: tuple[int, int] = (SIDE, SIDE)
) -> Detections:
    """Boxes (class, score, image, x1, y1, x2, y2) and true ones (class, image, x1, y1, x2, y2), in percent."""
    rows, targets = np.array(found, float).reshape(-1, 7), np.array(true, float).reshape(-1, 6)
    target_image = targets[:, 1].astype(int)
    return Detections(
        tp=np.zeros((len(rows), 10), bool),
        conf=rows[:, 1],
        pred_cls=rows[:, 0].astype(int),
        image=rows[:, 2].astype(int),
        target_cls=targets[:, 0].astype(int),
        target_image=target_image,
        images=tuple(f"{k}.png" for k in range(images)),
        places=Places(
            rows[:, 3:] / 100, targets[:, 2:] / 100, target_image, np.array([shape] * images), np.arange(images)
        ),
    )


BOX = (10, 10, 50, 50)
CASES = {
    "correct": ((0, 0.9, 0, *BOX), (0, 0, *BOX), kinds.CORRECT),
    "just enough": ((0, 0.9, 0, 10, 10, 50, 31), (0, 0, *BOX), kinds.CORRECT),
    "wrong place": ((0, 0.9, 0, 10, 10, 50, 29), (0, 0, *BOX), kinds.PLACE),
    "wrong class": ((1, 0.9, 0, *BOX), (0, 0, *BOX), kinds.CLASS),
    "wrong both": ((1, 0.9, 0, 10, 10, 50, 20), (0, 0, *BOX), kinds.BOTH),
    "background": ((0, 0.9, 0, 60, 60, 90, 90), (0, 0, *BOX), kinds.BACKGROUND),
    "other image": ((0, 0.9, 1, *BOX), (0, 0, *BOX), kinds.BACKGROUND),
}


@pytest.mark.parametrize("name", CASES)
def test_kind_of_a_detection(name: str) -> None:
    found, true, kind = CASES[name]
    matches = match(detections([found], [true], images=2), np.full(2, 0.5))
    assert matches.kind.tolist() == [kind]
    assert matches.found.tolist() == [kind == kinds.CORRECT]
    assert matches.touched.tolist() == [kind in {kinds.PLACE, kinds.CLASS, kinds.BOTH}]


def test_detection_below_its_threshold_does_not_count() -> None:
    own = detections([(0, 0.4, 0, *BOX), (1, 0.4, 0, *BOX)], [(0, 0, *BOX)])
    assert match(own, np.array([0.5, 0.3])).rows.tolist() == [1]
    assert match(own, np.array([0.4, 0.5])).kind.tolist() == [kinds.CORRECT]


def test_second_detection_of_a_box_is_a_duplicate_and_the_higher_score_is_the_first() -> None:
    matches = match(detections([(0, 0.6, 0, *BOX), (0, 0.9, 0, 12, 10, 50, 50)], [(0, 0, *BOX)]), np.full(1, 0.5))
    assert matches.rows.tolist() == [1, 0]
    assert matches.kind.tolist() == [kinds.CORRECT, kinds.DUPLICATE]
    assert matches.touched.tolist() == [False]


def test_detection_takes_the_box_that_it_overlaps_most() -> None:
    true = [(0, 0, 10, 10, 50, 50), (0, 0, 14, 10, 54, 50)]
    matches = match(detections([(0, 0.9, 0, 14, 10, 54, 50), (0, 0.8, 0, 14, 10, 54, 50)], true), np.full(1, 0.5))
    assert matches.target.tolist() == [1, 0] and matches.found.all()


def test_counts_and_confusion() -> None:
    """Class 0 found, class 1 taken for 0, class 1 missed, one duplicate, one box where nothing is."""
    found = [(0, 0.9, 0, *BOX), (0, 0.7, 0, *BOX), (0, 0.8, 1, *BOX), (1, 0.6, 1, 60, 60, 90, 90)]
    true = [(0, 0, *BOX), (1, 1, *BOX), (1, 2, *BOX)]
    own = detections(found, true, images=3)
    result = errors(own, match(own, np.full(2, 0.5)), 2)
    assert result.model_dump(exclude={"confusion"}) == {
        "correct": 1,
        "wrong_place": 0,
        "wrong_class": 1,
        "wrong_both": 0,
        "duplicates": 1,
        "background": 1,
        "missed": 1,
    }
    assert result.confusion == ((1, 0, 0), (1, 0, 1), (1, 1, 0))


def test_rows_of_the_confusion_add_up_to_the_true_boxes_and_columns_to_the_detections() -> None:
    random = np.random.default_rng(0)
    corners = np.sort(random.random((2, 60, 2)) * 100, axis=0)
    boxes = np.concatenate([corners[0], corners[1]], 1)
    found = [(k % 3, 0.3 + 0.01 * k, k % 4, *boxes[k]) for k in range(40)]
    true = [((k + k // 7) % 3, k % 4, *np.clip(boxes[k] + 2, 0, 100)) for k in range(25)]
    own = detections(found, true, images=4)
    matches = match(own, np.full(3, 0.35))
    table = np.array(errors(own, matches, 3).confusion)
    assert table[:3].sum(1).tolist() == np.bincount(own.target_cls, minlength=3).tolist()
    assert table[:, :3].sum(0).tolist() == np.bincount(own.pred_cls[matches.rows], minlength=3).tolist()
    counts = errors(own, matches, 3)
    parts = (counts.correct, counts.wrong_place, counts.wrong_class, counts.wrong_both, counts.duplicates)
    assert sum(parts) + counts.background == len(matches.rows) and min(parts[:2]) > 0


def test_recall_by_size_is_in_pixels_of_the_input() -> None:
    """A box of 20 x 5 percent of 200 x 100 px is 40 x 5 px: at an input of 400 px its side is 28 px."""
    true = [(0, 0, 0, 0, 20, 5), (0, 0, 50, 50, 100, 100), (0, 0, 30, 30, 32, 34)]
    own = detections([(0, 0.9, 0, 50, 50, 100, 100)], true, shape=(100, 200))
    rows = recall_by_size(own, match(own, np.full(1, 0.5)), imgsz=400)
    assert [(row.from_px, row.to_px, row.defects, row.found) for row in rows] == [
        (8.0, 16.0, 1, 0),
        (16.0, 32.0, 1, 0),
        (64.0, None, 1, 1),
    ]
    assert rows[-1].recall is not None and rows[-1].recall.value == 1.0


@pytest.mark.parametrize("shape", [(100, 100), (100, 400), (400, 100)])
def test_overlap_does_not_depend_on_the_shape_of_the_image(shape: tuple) -> None:
    own = detections([(0, 0.9, 0, 10, 10, 50, 29)], [(0, 0, *BOX)], shape=shape)
    assert match(own, np.full(1, 0.5)).kind.tolist() == [kinds.PLACE]


def test_without_places_nothing_can_be_matched() -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="places"):
        match(replace(detections([], []), places=None), np.full(1, 0.5))


def test_images_without_any_box() -> None:
    own = detections([], [], images=2)
    matches = match(own, np.full(2, 0.5))
    assert errors(own, matches, 2).missed == 0 and recall_by_size(own, matches, 64) == ()
