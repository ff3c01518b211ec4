"""Weighted boxes fusion, worked by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from dfssd.pseudo_labels.fusion import fuse
from dfssd.pseudo_labels.records import ImagePrediction


def look(*rows: tuple[int, float, tuple[float, float, float, float]], image: str = "a.jpg") -> ImagePrediction:
    """One prediction of boxes (class, score, xywhn)."""
    return ImagePrediction(
        image=Path(image),
        width=200,
        height=100,
        classes=np.array([r[0] for r in rows], dtype=np.int64),
        scores=np.array([r[1] for r in rows], dtype=np.float64),
        boxes_xywhn=np.array([r[2] for r in rows], dtype=np.float64).reshape(-1, 4),
    )


def rows(fused: ImagePrediction) -> list[tuple]:
    boxes = [pytest.approx(box, abs=1e-6) for box in fused.boxes_xywhn.tolist()]
    scores = [pytest.approx(s, abs=1e-6) for s in fused.scores.tolist()]
    return list(zip(fused.classes.tolist(), scores, boxes, strict=True))


BOX = (0.5, 0.5, 0.2, 0.2)
SHIFTED = (0.52, 0.5, 0.2, 0.2)  # IoU with BOX: 0.18 / 0.22 = 0.82
APART = (0.58, 0.5, 0.2, 0.2)  # 0.12 / 0.28 = 0.43


def test_two_views_that_agree():
    """Center (0.9 * 0.5 + 0.6 * 0.52) / 1.5 = 0.508, score (0.9 + 0.6) / 2."""
    fused = fuse([look((1, 0.9, BOX)), look((1, 0.6, SHIFTED))])
    assert rows(fused) == [(1, 0.75, [0.508, 0.5, 0.2, 0.2])]
    assert (fused.image, fused.width, fused.height) == (Path("a.jpg"), 200, 100)
    assert fused.classes.dtype == np.int64


def test_corners_are_averaged_so_sizes_are_too():
    """Left edges 0.4 and 0.45, right edges 0.6: (0.8 * 0.4 + 0.8 * 0.45) / 1.6 = 0.425."""
    fused = fuse([look((0, 0.8, BOX)), look((0, 0.8, (0.525, 0.5, 0.15, 0.2)))])
    assert rows(fused) == [(0, 0.8, [0.5125, 0.5, 0.175, 0.2])]


def test_the_same_box_everywhere_stays_as_it_is():
    assert rows(fuse([look((0, 0.7, BOX))] * 4)) == [(0, 0.7, list(BOX))]


def test_a_box_in_one_view_alone_counts_as_zero_in_the_others():
    assert rows(fuse([look((0, 0.8, BOX)), look(), look(), look()])) == [(0, 0.2, list(BOX))]
    assert rows(fuse([look(), look((0, 0.8, BOX)), look((0, 0.6, BOX))])) == [(0, 1.4 / 3, list(BOX))]


def test_two_boxes_of_one_view_do_not_count_as_two_views():
    """Mean score (0.8 + 0.4) / 2 = 0.6, seen in 1 of 2 views; the box is theirs weighted 2 : 1."""
    fused = fuse([look((0, 0.8, BOX), (0, 0.4, SHIFTED)), look()])
    assert rows(fused) == [(0, 0.3, [0.5 + 0.02 / 3, 0.5, 0.2, 0.2])]


def test_different_classes_never_merge():
    fused = fuse([look((0, 0.9, BOX)), look((1, 0.8, BOX))])
    assert rows(fused) == [(0, 0.45, list(BOX)), (1, 0.4, list(BOX))]


def test_boxes_that_overlap_too_little_stay_apart():
    assert len(fuse([look((0, 0.9, BOX)), look((0, 0.8, APART))]).classes) == 2
    assert len(fuse([look((0, 0.9, BOX)), look((0, 0.8, APART))], iou=0.4).classes) == 1


def test_floor_applies_before_and_after():
    """0.05 takes no part, so the other box does not move; 0.15 / 2 falls below the floor."""
    assert rows(fuse([look((0, 0.8, BOX)), look((0, 0.05, SHIFTED))], score_floor=0.1)) == [(0, 0.4, list(BOX))]
    assert rows(fuse([look((0, 0.15, BOX)), look()], score_floor=0.1)) == []
    assert rows(fuse([look((0, 0.15, BOX)), look()])) == [(0, 0.075, list(BOX))]


def test_score_lies_between_zero_and_the_highest():
    rng = np.random.default_rng(0)
    looks = []
    for _ in range(5):
        centers, sides, scores = rng.uniform(0.3, 0.7, (40, 2)), rng.uniform(0.1, 0.5, (40, 2)), rng.uniform(0, 1, 40)
        looks.append(look(*((int(i % 3), s, (*c, *w)) for i, (c, w, s) in enumerate(zip(centers, sides, scores)))))
    fused = fuse(looks)
    assert fused.scores.min() >= 0 and fused.scores.max() <= max(p.scores.max() for p in looks)
    assert (np.diff(fused.scores) <= 0).all()


def test_boxes_at_the_edge_pass_without_a_warning():
    """0.15 - 0.3 / 2 is just below 0 in float64."""
    corner = (0.15, 1 - 0.15, 0.3, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(fuse([look((0, 1.0, corner))] * 3)) == [(0, 1.0, list(corner))]


def test_nothing_seen():
    fused = fuse([look(), look()])
    assert fused.boxes_xywhn.shape == (0, 4) and fused.classes.dtype == np.int64 and fused.scores.shape == (0,)


def test_one_prediction_comes_back_as_it_is():
    alone = look((0, 0.9, BOX), (0, 0.01, SHIFTED))
    assert fuse([alone], score_floor=0.1) is alone


def test_what_cannot_be_fused_is_reported():
    for looks in ([], [look(), look(image="b.jpg")]):
        with pytest.raises(ValueError, match="predictions of one image are fused"):
            fuse(looks)


def test_inputs_stay_as_they_are():
    looks = [look((0, 0.9, BOX)), look((0, 0.6, SHIFTED))]
    fuse(looks)
    assert rows(looks[0]) == [(0, 0.9, list(BOX))] and rows(looks[1]) == [(0, 0.6, list(SHIFTED))]
