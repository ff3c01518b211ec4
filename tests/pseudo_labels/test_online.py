"""Pseudo-labels of a batch: zones, ignored images, known boxes, thresholds that move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfssd.batches import TILE_WIDER
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.pseudo_labels.records import BatchLabels
from tests.thresholds import class_thresholds


def labeler(**rule) -> OnlineLabeler:
    return OnlineLabeler(class_thresholds(2, **{"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, **rule}), iou=0.6)


def found_in(*images: list[tuple[float, float, float, float, float, float]]) -> np.ndarray:
    """Rows (x, y, w, h, score of class 0, score of class 1) [px] per image -> (C, 7), as candidates come."""
    rows = []
    for i, boxes in enumerate(images):
        for x, y, w, h, *scores in boxes:
            best = int(np.argmax(scores))
            rows.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2, scores[best], best, i))
    return np.array(rows, np.float32).reshape(-1, 7)


def known_boxes(rows: Sequence[tuple[float, ...]] = (), ignored: Sequence[tuple[float, ...]] = ()) -> BatchLabels:
    """Rows (image, class, x, y, w, h, score), and ignored ones (image, source, x, y, w, h)."""
    table, other = np.array(rows, np.float32).reshape(-1, 7), np.array(ignored, np.float32).reshape(-1, 6)
    return BatchLabels(table[:, 0], table[:, 1:2], table[:, 2:6], table[:, 6], other[:, 0], other[:, 2:], other[:, 1])


def nothing() -> BatchLabels:
    return known_boxes()


def test_zones_and_coordinates_by_hand() -> None:
    rows = [(20, 10, 8, 4, 0.8, 0.0), (60, 30, 8, 4, 0.0, 0.3), (60, 10, 8, 4, 0.05, 0.0)]
    found = labeler()(found_in(rows), np.array([5]), (40, 80), nothing())
    assert found.batch_idx.tolist() == [5] and found.cls.tolist() == [[0]]
    assert np.allclose(found.bboxes, [[0.25, 0.25, 0.1, 0.1]], atol=1e-6)
    assert np.allclose(found.score, [0.8])
    assert found.ignore_batch_idx.tolist() == [5]
    assert np.allclose(found.ignore_bboxes, [[0.75, 0.75, 0.1, 0.1]], atol=1e-6)


def test_image_without_accepted_box_is_ignored_as_a_whole() -> None:
    found = labeler()(found_in([(20, 10, 8, 4, 0.8, 0.0)], []), np.array([2, 3]), (40, 80), nothing())
    assert found.ignore_batch_idx.tolist() == [3] and found.ignore_bboxes.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_boxes_are_sorted_by_image_whatever_the_order_of_scores() -> None:
    box = (20, 10, 8, 4)
    found = labeler(tau_max=0.5)(
        found_in([(*box, 0.6, 0)], [(*box, 0.9, 0), (60, 30, 8, 4, 0, 0.7)]), np.array([1, 4]), (40, 80), nothing()
    )
    assert found.batch_idx.tolist() == [1, 4, 4]


def test_thresholds_follow_the_teacher() -> None:
    online = labeler(decay=0.5)
    for _ in range(6):
        online(found_in([(20, 10, 8, 4, 0.95, 0.0)]), np.array([0]), (40, 80), nothing())
    assert np.allclose(online.thresholds.thresholds(), [0.9, 0.5])
    found = online(found_in([(20, 10, 8, 4, 0.7, 0.0)]), np.array([0]), (40, 80), nothing())
    assert len(found.bboxes) == 0, "0.7 would have been accepted at first"


def known() -> BatchLabels:
    return known_boxes([(1, 0, 0.25, 0.25, 0.1, 0.1, 0.6)], [(1, -1, 0.8, 0.8, 0.1, 0.1)])


def test_known_boxes_are_kept_and_not_doubled() -> None:
    rows = [(20, 10, 8, 4, 0.8, 0.0), (60, 10, 8, 4, 0.0, 0.9)]  # the first is the known one
    found = labeler(tau_max=0.5)(found_in(rows), np.array([1]), (40, 80), known())
    assert found.cls.flatten().tolist() == [0, 1]
    assert np.allclose(found.score, [0.6, 0.9])
    assert np.allclose(found.ignore_bboxes, known().ignore_bboxes)


def test_same_place_of_another_class_is_another_box() -> None:
    found = labeler()(found_in([(20, 10, 8, 4, 0.0, 0.8)]), np.array([1]), (40, 80), known())
    assert sorted(found.cls.flatten().tolist()) == [0, 1]


def test_numbers_that_are_not_finite_are_no_boxes() -> None:
    found = labeler()(found_in([(float("nan"), 10, 8, 4, 0.8, 0.0)]), np.array([0]), (40, 80), nothing())
    assert len(found.bboxes) == 0 and len(found.ignore_bboxes) == 1


def test_silent_photos_of_a_mosaic_stay_ignored_and_the_others_do_not() -> None:
    """Left half photo 7, right half photo 9: a box is accepted in the left one only, even right at the seam."""
    tiles = [(0.25, 0.5, 0.5 * TILE_WIDER, 1.0), (0.75, 0.5, 0.5 * TILE_WIDER, 1.0)]
    known = known_boxes(ignored=[(1, 7, *tiles[0]), (1, 9, *tiles[1])])
    for x in (20, 39):
        found = labeler()(found_in([(x, 20, 8, 4, 0.8, 0.0)]), np.array([1]), (40, 80), known)
        assert len(found.bboxes) == 1
        assert np.allclose(found.ignore_bboxes, tiles[1:])
    found = labeler()(found_in([(20, 10, 8, 4, 0.0, 0.0)]), np.array([1]), (40, 80), known)
    assert len(found.ignore_bboxes) == 3, "both photos, and the image as a whole"


def test_boxes_end_at_the_border_of_the_image() -> None:
    found = labeler()(found_in([(0, 10, 8, 4, 0.8, 0.0)]), np.array([0]), (40, 80), nothing())
    assert np.allclose(found.bboxes, [[0.025, 0.25, 0.05, 0.1]], atol=1e-6)


def test_beside_labels_a_box_that_meets_one_is_ignored_and_no_image_as_a_whole() -> None:
    """Image 0 is labeled, image 1 is not; the label covers the left quarter of the width."""
    true = known_boxes([(0, 1, 0.125, 0.5, 0.25, 1.0, 1.0)])
    rows = [
        (60, 20, 8, 4, 0.8, 0.0),  # far away
        (22, 10, 12, 4, 0.8, 0.0),  # a third of it lies in the label
        (18, 30, 12, 4, 0.8, 0.0),  # two thirds
    ]
    found = labeler(tau_max=0.5)(found_in(rows, rows[2:]), np.array([0, 1]), (40, 80), true, first_unlabeled=1)
    assert found.batch_idx.tolist() == [0, 0, 0, 1] and found.cls.flatten().tolist() == [1, 0, 0, 0]
    assert np.allclose(found.bboxes[:, 0] * 80, [10, 60, 22, 18], atol=1e-4)
    assert found.ignore_batch_idx.tolist() == [0] and np.allclose(found.ignore_bboxes[0, 0] * 80, 18, atol=1e-4)
    found = labeler()(found_in([], []), np.array([0, 1]), (40, 80), true, first_unlabeled=1)
    assert found.ignore_batch_idx.tolist() == [1], "the unlabeled image alone"
