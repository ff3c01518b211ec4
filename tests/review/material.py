"""Boxes that networks may have found, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfssd.pseudo_labels.records import PseudoImage

Box = tuple[int, float, tuple[float, float, float, float]]
"""Class id, score, and x, y, w, h (0-1)."""


def found(*boxes: Box, image: str = "a.png", size: tuple[int, int] = (200, 100)) -> PseudoImage:
    """What a network has found in one image."""
    return PseudoImage(
        Path(image),
        *size,
        label=None,
        classes=np.array([box[0] for box in boxes], dtype=np.int64),
        scores=np.array([box[1] for box in boxes], dtype=np.float32),
        boxes_xywhn=np.array([box[2] for box in boxes], dtype=np.float32).reshape(-1, 4),
        zones=np.array(["accept"] * len(boxes), dtype=np.str_),
    )


def hashes(*first_bytes: Sequence[int]) -> np.ndarray:
    """(n, 8, 8) hashes that are zero but for their first bytes, the same in all poses."""
    rows = np.zeros((len(first_bytes), 8, 8), dtype=np.uint8)
    for row, own in zip(rows, first_bytes, strict=True):
        row[:, : len(own)] = own
    return rows
