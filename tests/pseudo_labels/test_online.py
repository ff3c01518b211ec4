"""Pseudo-labels of a batch: zones, ignored images, known boxes, thresholds that move."""

from __future__ import annotations

import numpy as np
import torch

from dfssd.batches import TILE_WIDER
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.pseudo_labels.records import BatchLabels
from tests.thresholds import class_thresholds


def labeler(**rule) -> OnlineLabeler:
    return OnlineLabeler(class_thresholds(2, **{"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, **rule}), iou=0.6)


def decoded(*images: list[tuple[float, float, float, float, float, float]]) -> torch.Tensor:
    """Rows (x, y, w, h, score of class 0, score of class 1) [px] per image -> (U, 6, A)."""
    most = max(len(rows) for rows in images)
    out = torch.zeros(len(images), 6, max(most, 1))
    for i, rows in enumerate(images):
        for a, row in enumerate(rows):
            out[i, :, a] = torch.tensor(row)
    return out


def nothing() -> BatchLabels:
    empty = torch.zeros(0)
    return BatchLabels(empty, empty[:, None], torch.zeros(0, 4), empty, empty, torch.zeros(0, 4), empty)


def test_zones_and_coordinates_by_hand() -> None:
    rows = [(20, 10, 8, 4, 0.8, 0.0), (60, 30, 8, 4, 0.0, 0.3), (60, 10, 8, 4, 0.05, 0.0)]
    found = labeler()(decoded(rows), torch.tensor([5]), (40, 80), nothing())
    assert found.batch_idx.tolist() == [5] and found.cls.tolist() == [[0]]
    assert torch.allclose(found.bboxes, torch.tensor([[0.25, 0.25, 0.1, 0.1]]), atol=1e-6)
    assert torch.allclose(found.score, torch.tensor([0.8]))
    assert found.ignore_batch_idx.tolist() == [5]
    assert torch.allclose(found.ignore_bboxes, torch.tensor([[0.75, 0.75, 0.1, 0.1]]), atol=1e-6)


def test_image_without_accepted_box_is_ignored_as_a_whole() -> None:
    found = labeler()(decoded([(20, 10, 8, 4, 0.8, 0.0)], []), torch.tensor([2, 3]), (40, 80), nothing())
    assert found.ignore_batch_idx.tolist() == [3] and found.ignore_bboxes.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_boxes_are_sorted_by_image_whatever_the_order_of_scores() -> None:
    box = (20, 10, 8, 4)
    found = labeler(tau_max=0.5)(
        decoded([(*box, 0.6, 0)], [(*box, 0.9, 0), (60, 30, 8, 4, 0, 0.7)]), torch.tensor([1, 4]), (40, 80), nothing()
    )
    assert found.batch_idx.tolist() == [1, 4, 4]


def test_thresholds_follow_the_teacher() -> None:
    online = labeler(decay=0.5)
    for _ in range(6):
        online(decoded([(20, 10, 8, 4, 0.95, 0.0)]), torch.tensor([0]), (40, 80), nothing())
    assert np.allclose(online.thresholds.thresholds(), [0.9, 0.5])
    found = online(decoded([(20, 10, 8, 4, 0.7, 0.0)]), torch.tensor([0]), (40, 80), nothing())
    assert len(found.bboxes) == 0, "0.7 would have been accepted at first"


def known() -> BatchLabels:
    return BatchLabels(
        batch_idx=torch.tensor([1.0]),
        cls=torch.tensor([[0.0]]),
        bboxes=torch.tensor([[0.25, 0.25, 0.1, 0.1]]),
        score=torch.tensor([0.6]),
        ignore_batch_idx=torch.tensor([1.0]),
        ignore_bboxes=torch.tensor([[0.8, 0.8, 0.1, 0.1]]),
        ignore_source=torch.tensor([-1.0]),
    )


def test_known_boxes_are_kept_and_not_doubled() -> None:
    rows = [(20, 10, 8, 4, 0.8, 0.0), (60, 10, 8, 4, 0.0, 0.9)]  # the first is the known one
    found = labeler(tau_max=0.5)(decoded(rows), torch.tensor([1]), (40, 80), known())
    assert found.cls.flatten().tolist() == [0, 1]
    assert torch.allclose(found.score, torch.tensor([0.6, 0.9]))
    assert torch.allclose(found.ignore_bboxes, known().ignore_bboxes)


def test_same_place_of_another_class_is_another_box() -> None:
    found = labeler()(decoded([(20, 10, 8, 4, 0.0, 0.8)]), torch.tensor([1]), (40, 80), known())
    assert sorted(found.cls.flatten().tolist()) == [0, 1]


def test_numbers_that_are_not_finite_are_no_boxes() -> None:
    found = labeler()(decoded([(float("nan"), 10, 8, 4, 0.8, 0.0)]), torch.tensor([0]), (40, 80), nothing())
    assert len(found.bboxes) == 0 and len(found.ignore_bboxes) == 1


def test_silent_photos_of_a_mosaic_stay_ignored_and_the_others_do_not() -> None:
    """Left half photo 7, right half photo 9: a box is accepted in the left one only, even right at the seam."""
    tiles = torch.tensor([[0.25, 0.5, 0.5 * TILE_WIDER, 1.0], [0.75, 0.5, 0.5 * TILE_WIDER, 1.0]])
    known = BatchLabels(
        batch_idx=torch.zeros(0),
        cls=torch.zeros(0, 1),
        bboxes=torch.zeros(0, 4),
        score=torch.zeros(0),
        ignore_batch_idx=torch.tensor([1.0, 1.0]),
        ignore_bboxes=tiles,
        ignore_source=torch.tensor([7.0, 9.0]),
    )
    for x in (20, 39):
        found = labeler()(decoded([(x, 20, 8, 4, 0.8, 0.0)]), torch.tensor([1]), (40, 80), known)
        assert len(found.bboxes) == 1
        assert torch.equal(found.ignore_bboxes, tiles[1:])
    found = labeler()(decoded([(20, 10, 8, 4, 0.0, 0.0)]), torch.tensor([1]), (40, 80), known)
    assert len(found.ignore_bboxes) == 3, "both photos, and the image as a whole"


def test_boxes_end_at_the_border_of_the_image() -> None:
    found = labeler()(decoded([(0, 10, 8, 4, 0.8, 0.0)]), torch.tensor([0]), (40, 80), nothing())
    assert torch.allclose(found.bboxes, torch.tensor([[0.025, 0.25, 0.05, 0.1]]), atol=1e-6)
