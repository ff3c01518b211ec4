"""Non-maximum suppression on the host, against Ultralytics'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ultralytics.utils.nms import non_max_suppression

from dfssd.pseudo_labels import suppression
from dfssd.pseudo_labels.suppression import suppress


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
    for image in predictions:
        score, best = image[4:].max(0)
        half = image[2:4] / 2
        table = torch.stack([*(image[:2] - half), *(image[:2] + half), score, best.float()], 1)
        rows.append(table[score > 0.25])
    assert len(expected[2]) == 0 and len(expected[0]) > 5
    for table, wanted in zip(rows, expected, strict=True):
        found = suppress(table.numpy(), iou=0.6, max_det=max_det)
        assert np.array_equal(found[:, :6], wanted.numpy())


def test_best_candidates_are_looked_at_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([[x, 10, x + 8, 14, score, 0] for x, score in ((10, 0.3), (30, 0.9), (50, 0.5))], np.float32)
    assert np.allclose(suppress(rows, iou=0.6, max_det=300)[:, 4], [0.9, 0.5, 0.3])
    monkeypatch.setattr(suppression, "MOST_CANDIDATES", 2)
    assert np.allclose(suppress(rows, iou=0.6, max_det=300)[:, 4], [0.9, 0.5])


def test_no_candidate_is_no_box() -> None:
    assert suppress(np.zeros((0, 7), np.float32), iou=0.6, max_det=300).shape == (0, 7)


def test_overlap_and_class_decide() -> None:
    """Two boxes with IoU 0.6, then of different classes."""
    rows = np.array([[0, 0, 8, 10, 0.9, 0], [2, 0, 10, 10, 0.8, 0]], np.float32)
    assert len(suppress(rows, iou=0.5, max_det=300)) == 1
    assert len(suppress(rows, iou=0.7, max_det=300)) == 2
    rows[1, 5] = 1
    assert len(suppress(rows, iou=0.5, max_det=300)) == 2
