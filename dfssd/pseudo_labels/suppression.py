"""Non-maximum suppression on the host, equal to Ultralytics'; for labels made before and during a training alike."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import nms

APART = 7680.0
"""Distance [px] by which boxes of neighboring classes are moved apart, so that they do not suppress each other."""

MOST_CANDIDATES = 30_000
"""Candidates of an image among which overlapping ones are searched, those of the highest scores."""


def suppress(rows: np.ndarray, *, iou: float, max_det: int) -> np.ndarray:
    """Non-maximum suppression among the boxes of one image, class by class.

    Args:
        rows: (C, 6 or more) float32: x1, y1, x2, y2 [px], score, class, and what else belongs to a box.
        iou: IoU above which the box of the lower score is dropped.
        max_det: Most boxes that are returned.

    Returns:
        The remaining rows, a copy, by falling score.
    """
    if len(rows) > MOST_CANDIDATES:
        rows = rows[np.argsort(-rows[:, 4], kind="stable")[:MOST_CANDIDATES]]
    apart = rows[:, :4] + rows[:, 5:6] * np.float32(APART)
    chosen = nms(torch.from_numpy(apart), torch.from_numpy(np.ascontiguousarray(rows[:, 4])), iou)
    kept: np.ndarray = rows[chosen[:max_det].numpy()]
    return kept
