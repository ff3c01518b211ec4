"""How far boxes lie in one another."""

from __future__ import annotations

import numpy as np


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair.

    Args:
        a: Boxes (n, 4), xywh center format.
        b: Boxes (m, 4), same units.

    Returns:
        (n, m) in [0, 1].
    """
    inter = intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None] - inter
    overlap: np.ndarray = inter / np.maximum(union, np.finfo(np.float64).tiny)
    return overlap


def covered_share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of the smaller box of every pair that lies in the larger one; arguments and result as :func:`box_iou`."""
    least = np.minimum(_area(a)[:, None], _area(b)[None])
    share: np.ndarray = intersection(a, b) / np.maximum(least, np.finfo(np.float64).tiny)
    return share


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Common area of every pair of boxes, (n, 4) and (m, 4), xywh center format -> (n, m)."""
    low = np.maximum(a[:, None, :2] - a[:, None, 2:] / 2, b[None, :, :2] - b[None, :, 2:] / 2)
    high = np.minimum(a[:, None, :2] + a[:, None, 2:] / 2, b[None, :, :2] + b[None, :, 2:] / 2)
    common: np.ndarray = np.clip(high - low, 0, None).prod(2)
    return common


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = boxes[:, 2:].prod(1)
    return area


def partners(overlap: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """For each box the index of the other one that shows the same object, else -1.

    Greedy by falling score, each taking the other box with the largest overlap that is left.

    Args:
        overlap: IoU of each box with each other one, (n, m); -1: never the same object.
        scores: Scores of the boxes, (n,).
        least: Least overlap of partners.

    Returns:
        (n,) int.
    """
    partner, left = np.full(len(overlap), -1), overlap.copy()
    for i in np.argsort(-scores, kind="stable") if overlap.size else ():
        j = int(left[i].argmax())
        if left[i, j] >= least:
            left[:, j] = -1
            partner[i] = j
    return partner
