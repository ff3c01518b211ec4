"""The boxes of a step as the YOLO loss takes them: padded to one table per batch, prepared on the host."""

from __future__ import annotations

import numpy as np

from dfssd.batches import Batch, HostBatch
from dfssd.pseudo_labels.records import BatchLabels, on_host

LEAST_WEIGHT = 1e-3
"""Weight of a pseudo box whose score is lower still."""

NOWHERE = (2.0, -1.0)
"""Lowest and highest coordinate of a place without ignored box: nothing lies between."""


def padded(values: np.ndarray, batch_idx: np.ndarray, n: int, fill: float) -> np.ndarray:
    """Values of boxes in a table with one row per image.

    Args:
        values: (M, ...) one value, or several, per box.
        batch_idx: (M,) image of each box, in rising order.
        n: Number of images.
        fill: Value of places without box.

    Returns:
        (n, largest number of boxes in an image, ...).
    """
    index = batch_idx.astype(np.int64)
    counts = np.bincount(index, minlength=n)
    out = np.full((n, counts.max(initial=0), *values.shape[1:]), fill, values.dtype)
    first = np.cumsum(counts) - counts
    out[index, np.arange(len(index)) - first[index]] = values
    return out


def padded_targets(boxes: BatchLabels, n: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """What the loss reads of the boxes of ``n`` images.

    Args:
        boxes: All boxes of the batch; the score of a true one is 1.
        n: Images of the batch; M boxes at most in each, K ignored ones.
        size: Height and width of the images [px].

    Returns:
        ``gt_labels`` (n, M, 1) int64, ``gt_bboxes`` (n, M, 4) xyxy [px], ``mask_gt`` (n, M, 1), 1 where there is a box,
        as Ultralytics' assigner takes them; ``weights`` (n, M), of the boxes in the loss, absent if all are 1; ``low``
        and ``high`` (n, K, 2), corners x, y of the ignored boxes relative to the image, absent without any.
    """
    height, width = size
    xywh = boxes.bboxes * np.array([width, height, width, height], np.float32)
    half = xywh[:, 2:] / 2
    corners = np.concatenate([xywh[:, :2] - half, xywh[:, :2] + half], 1)
    gt_bboxes = padded(corners, boxes.batch_idx, n, 0.0)
    found = {
        "gt_labels": padded(boxes.cls.reshape(-1, 1).astype(np.int64), boxes.batch_idx, n, 0),
        "gt_bboxes": gt_bboxes,
        "mask_gt": (gt_bboxes.sum(2, keepdims=True) > 0).astype(np.float32),
    }
    weights = np.maximum(boxes.score, LEAST_WEIGHT).astype(np.float32)
    if (weights != 1).any():
        found["weights"] = padded(weights, boxes.batch_idx, n, 1.0)
    if len(boxes.ignore_bboxes):
        center, half = boxes.ignore_bboxes[:, :2], boxes.ignore_bboxes[:, 2:] / 2
        for name, corner, fill in zip(("low", "high"), (center - half, center + half), NOWHERE, strict=True):
            found[name] = padded(corner, boxes.ignore_batch_idx, n, fill)
    return found


def count_labeled(batch: HostBatch | Batch) -> int:
    """Labeled images of a batch.

    Raises:
        ValueError: They do not come first.
    """
    labeled = on_host(batch["labeled"])
    n = int(labeled.sum())
    if not labeled[:n].all():
        raise ValueError("the labeled images of a batch must come before the other ones")
    return n
