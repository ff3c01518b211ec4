"""Boxes on an image: where they are drawn, and that their labels do not cover each other."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.reporting.boxes import SIDE, Mark, annotated

BLUE, ORANGE = "#0072b2", "#d55e00"


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def colored(picture: np.ndarray, color: str) -> np.ndarray:
    """(H, W) bool, pixels of that color."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.asarray((np.abs(picture.astype(int) - rgb) < 12).all(2))


@pytest.mark.parametrize(("height", "width"), [(60, 80), (2000, 1000), (480, 480)])
def test_longer_side_is_always_the_same(height: int, width: int) -> None:
    picture = annotated(gray(height, width), [])
    assert max(picture.size) == SIDE
    assert picture.size[0] / picture.size[1] == pytest.approx(width / height, rel=0.01)
    assert (np.asarray(picture) == 128).all()


def test_frame_lies_on_the_box() -> None:
    picture = np.asarray(annotated(gray(240, 480), [Mark((0.25, 0.5, 0.75, 0.9), "dents 0.81", BLUE)]))
    drawn = colored(picture, BLUE)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    assert abs(rows[-1] - 0.9 * 240) <= 2 and abs(columns[0] - 0.25 * 480) <= 2 and abs(columns[-1] - 0.75 * 480) <= 2
    assert not drawn[130:205, 140:340].any(), "the defect itself is not covered"
    assert rows[0] < 0.5 * 240 - 8, "the label is above"


def test_exchanged_corners_are_the_same_box() -> None:
    """As an end-to-end head that has learned little gives them."""
    given = [Mark((0.25, 0.5, 0.75, 0.9), "dents", BLUE), Mark((0.75, 0.9, 0.25, 0.5), "dents", BLUE)]
    first, second = (np.asarray(annotated(gray(240, 480), [mark])) for mark in given)
    assert np.array_equal(first, second)


def test_labels_of_boxes_in_one_place_can_all_be_read() -> None:
    """Three boxes that nearly coincide: each label keeps its area."""
    marks = [Mark((0.3, 0.4, 0.7, 0.8), "oil spots 0.59", c) for c in (BLUE, ORANGE, "#b8860b")]
    picture = np.asarray(annotated(gray(480, 480), marks))
    alone = [np.asarray(annotated(gray(480, 480), [mark])) for mark in marks]
    for mark, own in zip(marks, alone, strict=True):
        assert colored(picture, mark.color).sum() > 0.6 * (colored(own, mark.color).sum() - 4 * 192 * 2)


def test_any_letters_are_drawn() -> None:
    plain = np.asarray(annotated(gray(200, 200), [Mark((0.2, 0.4, 0.8, 0.8), "", BLUE)]))
    for text in ("Kratzer Ä", "царапина", "ρωγμή"):
        named = np.asarray(annotated(gray(200, 200), [Mark((0.2, 0.4, 0.8, 0.8), text, BLUE)]))
        assert (named != plain).any(2).sum() > 200
