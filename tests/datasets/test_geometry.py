"""Boxes against the image as training reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfssd.datasets.annotations import Annotation
from dfssd.datasets.geometry import joined, rows, same_boxes

NAMES = ("a", "b")


def annotation(*boxes: tuple[float, float, float, float], **changes: Any) -> Annotation:
    values = {"labels": ("b",) * len(boxes), "boxes": np.array(boxes, dtype=np.float64).reshape(-1, 4), **changes}
    return Annotation(Path("x.xml"), **values)


def test_corners_become_relative_boxes() -> None:
    found = rows(annotation((10, 20, 30, 60), size=(100, 200)), (100, 200), NAMES, resize=False)
    np.testing.assert_allclose(found, [[1, 0.2, 0.2, 0.2, 0.2]])
    assert found.dtype == np.float32


def test_relative_boxes_keep_their_last_bit_and_their_order() -> None:
    boxes = ((0.7, 0.5, 0.1, 0.3), (1 / 3, 0.5, 0.1, 0.3), (0.7, 0.5, 0.1, 0.3))
    found = rows(annotation(*boxes, normalized=True), (7, 7), NAMES, resize=False)
    np.testing.assert_array_equal(found[:, 1:], np.array(boxes[:2], dtype=np.float32))


def test_a_stated_size_that_is_not_that_of_the_image() -> None:
    own = annotation((10, 20, 30, 60), size=(200, 100))
    with pytest.raises(ValueError, match=r"states an image of 200x100 px, but the image has 100x50 px.*resize_labels"):
        rows(own, (100, 50), NAMES, resize=False)
    np.testing.assert_allclose(rows(own, (100, 50), NAMES, resize=True), [[1, 0.1, 0.4, 0.1, 0.4]])
    with pytest.raises(ValueError, match=r"200x100 px, but the image has 100x200 px: .*EXIF"):
        rows(own, (100, 200), NAMES, resize=False)


def test_an_image_without_boxes_may_have_any_stated_size() -> None:
    assert rows(annotation(size=(3, 3)), (100, 50), NAMES, resize=False).shape == (0, 5)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, 10, 10, 20), "has no area"),
        ((10, 10, 5, 20), "has no area"),
        ((10, 10, 140, 20), r"10 10 140 20 reaches outside the image \(100x100 px\)"),
        ((float("nan"), 1, 2, 3), "NaN"),
    ],
)
def test_boxes_that_cannot_be(box: tuple[float, float, float, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rows(annotation(box), (100, 100), NAMES, resize=False)


def test_a_problem_of_the_file_and_an_unknown_class() -> None:
    with pytest.raises(ValueError, match="it hurts"):
        rows(annotation(problem="it hurts"), (9, 9), NAMES, resize=False)
    with pytest.raises(ValueError, match="'c' is not among"):
        rows(annotation((1, 1, 5, 5), labels=("c",)), (9, 9), NAMES, resize=False)


def boxes(*found: tuple[int, float, float, float, float]) -> np.ndarray:
    return np.array(found, dtype=np.float32).reshape(-1, 5)


A, A_ROUNDED = (0, 0.3, 0.3, 0.2, 0.2), (0, 0.304, 0.3, 0.2, 0.2)
B, MOVED, OTHER_CLASS = (1, 0.7, 0.7, 0.2, 0.2), (0, 0.34, 0.3, 0.2, 0.2), (1, 0.3, 0.3, 0.2, 0.2)
SIZE = (200, 200)


def test_same_boxes_up_to_rounding_and_order() -> None:
    assert same_boxes(boxes(A, B), boxes(B, A_ROUNDED), SIZE)
    assert same_boxes(boxes(), boxes(), SIZE)
    for other in (boxes(A), boxes(A, OTHER_CLASS), boxes(MOVED, B), boxes(A, B, B)):
        assert not same_boxes(boxes(A, B), other, SIZE)


def test_boxes_of_two_annotators_are_joined_unless_they_contradict_each_other() -> None:
    together = joined([boxes(A), boxes(B, A_ROUNDED), boxes()], SIZE)
    assert together is not None
    np.testing.assert_array_equal(together, boxes(A, B))
    assert joined([boxes(A), boxes(MOVED)], SIZE) is None
    assert joined([boxes(A), boxes(OTHER_CLASS)], SIZE) is None
