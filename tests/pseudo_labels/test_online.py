"""Pseudo-labels of a batch: zones, ignored images, known boxes, thresholds that move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from ultralytics.utils.nms import non_max_suppression

from dfssd.batches import TILE_WIDER
from dfssd.pseudo_labels.online import OnlineLabeler, suppress
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


def random_predictions(seed: int, *, tied: bool) -> torch.Tensor:
    """(3, 6, 900) boxes around few places, xywh [px], and two class scores; ``tied``: many are equal."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.rand(3, 2, 20, generator=g)[:, :, torch.randint(20, (900,), generator=g)] * 400
    moved, side = 6 * torch.randn(3, 2, 900, generator=g), 40 + 20 * torch.rand(3, 2, 900, generator=g)
    boxes = torch.cat([centers + moved, side], 1)
    scores = torch.rand(3, 2, 900, generator=g)
    if tied:
        boxes, scores = (boxes / 16).round() * 16, (scores * 8).round() / 8
    scores[2] *= 0.05  # nothing in the last image
    return torch.cat([boxes, scores], 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_det", [300, 7])
@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_that_of_ultralytics(tied: bool, max_det: int, seed: int) -> None:
    predictions = random_predictions(seed, tied=tied)
    expected = non_max_suppression(predictions.clone(), conf_thres=0.25, iou_thres=0.6, max_det=max_det)
    rows = []
    for i, image in enumerate(predictions):
        score, best = image[4:].max(0)
        half = image[2:4] / 2
        table = torch.stack([*(image[:2] - half), *(image[:2] + half), score, best.float(), torch.full((900,), i)], 1)
        rows.append(table[score > 0.25])
    found = suppress(torch.cat(rows).numpy(), 0.6, max_det)
    assert len(expected[2]) == 0 and len(expected[0]) > 5
    for i, wanted in enumerate(expected):
        assert np.array_equal(found[found[:, 6] == i, :6], wanted.numpy())


def test_best_candidates_are_looked_at_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = found_in([(x, 10, 8, 4, score, 0.0) for x, score in ((10, 0.3), (30, 0.9), (50, 0.5))])
    monkeypatch.setattr("dfssd.pseudo_labels.online.MOST_CANDIDATES", 2)
    assert np.allclose(suppress(rows, 0.6, 300)[:, 4], [0.9, 0.5])


def test_no_candidate_is_no_box() -> None:
    assert suppress(np.zeros((0, 7), np.float32), 0.6, 300).shape == (0, 7)
