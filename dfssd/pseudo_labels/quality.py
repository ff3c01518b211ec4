"""Quality of pseudo-labels where true boxes are known: reported, never used in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.overlap import box_iou, partners
from dfssd.pseudo_labels.records import PseudoImage
from dfssd.pseudo_labels.thresholds import ACCEPT


def find_matches(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, iou: float) -> np.ndarray:
    """Which boxes match a true box: greedy by falling score, each taking the best unmatched one.

    Boxes of lower score do not affect the others, so dropping those below a threshold changes no other match.

    Args:
        boxes: Predicted boxes of one class in one image, (n, 4) xywh.
        scores: Their scores, (n,).
        truth: True boxes of that class and image, (m, 4) xywh, same units.
        iou: Least overlap of a match.

    Returns:
        (n,) bool.
    """
    if not len(boxes) or not len(truth):
        return np.zeros(len(boxes), dtype=bool)
    overlap = box_iou(np.asarray(boxes, np.float64), np.asarray(truth, np.float64))
    found: np.ndarray = partners(overlap, scores, iou) >= 0
    return found


def count_matches(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, iou: float) -> int:
    """Number of boxes that match a true box; arguments as in :func:`find_matches`."""
    return int(find_matches(boxes, scores, truth, iou).sum())


def pseudo_label_quality(
    images: Iterable[PseudoImage],
    truth: Mapping[Path, np.ndarray],
    names: Sequence[str],
    iou: float = 0.5,
) -> dict[str, Any]:
    """Precision and recall of the accepted boxes against true ones.

    Args:
        images: Pseudo-labeled images, as :func:`dfssd.pseudo_labels.files.read_pseudo_labels` returns them.
        truth: True boxes by image: (n, 5) rows [class id, x, y, w, h], xywh center format normalized to 0-1. Images
            that are not in it are left out.
        names: Class names in id order.
        iou: Least overlap of a match.

    Returns:
        ``{"iou", "images", "precision", "recall", "per_class": {name: {"precision", "recall", "tp", "fp", "fn"}}}``;
        a ratio without boxes is None.
    """
    counts = np.zeros((len(names), 3), dtype=np.int64)  # matched, accepted, true
    compared = 0
    for image in images:
        if image.image not in truth:
            continue
        compared += 1
        true = np.asarray(truth[image.image], dtype=np.float64).reshape(-1, 5)
        accepted = image.zones == ACCEPT
        for c in {*image.classes[accepted].tolist(), *true[:, 0].astype(int).tolist()}:
            mine = accepted & (image.classes == c)
            real = true[true[:, 0] == c, 1:]
            matched = count_matches(image.boxes_xywhn[mine], image.scores[mine], real, iou)
            counts[c] += (matched, mine.sum(), len(real))
    per_class = {name: _ratios(*map(int, row)) for name, row in zip(names, counts, strict=True)}
    total = _ratios(*map(int, counts.sum(0)))
    return {
        "iou": iou,
        "images": compared,
        "precision": total["precision"],
        "recall": total["recall"],
        "per_class": per_class,
    }


def _ratios(matched: int, accepted: int, true: int) -> dict[str, Any]:
    return {
        "precision": matched / accepted if accepted else None,
        "recall": matched / true if true else None,
        "tp": matched,
        "fp": accepted - matched,
        "fn": true - matched,
    }
