"""Whether an image is drawn, as masks are: even areas of a few gray values."""

from __future__ import annotations

import cv2
import numpy as np

_FEW = 0.98
"""Share of the pixels of a drawing that have one of its few values; the rest is JPEG noise at the edges."""

_LEVELS = 8
"""Most values of a drawing, in steps of 8 gray levels."""

_EVEN = 0.9
"""Share of neighbors in a drawing that have the same value. Grain and noise leave less than half of them alike, also in
dark and dull photos, whose values are few as well."""


def is_drawn(pixels: np.ndarray) -> bool:
    """Whether nearly all pixels lie in even areas, and have one of a few gray values, as those of a mask.

    Args:
        pixels: (h, w, 3) uint8 or uint16, BGR; of the latter the used part of the range counts.
    """
    gray: np.ndarray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    if gray.dtype != np.uint8:
        gray = cv2.convertScaleAbs(gray, alpha=255 / max(int(gray.max()), 1))
    counts = np.sort(np.bincount((gray >> 3).ravel(), minlength=32))[::-1]
    if counts[:_LEVELS].sum() < _FEW * counts.sum() or np.count_nonzero(counts > 0.001 * counts.sum()) > _LEVELS:
        return False
    alike = np.count_nonzero(gray[1:] == gray[:-1]) + np.count_nonzero(gray[:, 1:] == gray[:, :-1])
    return bool(alike >= _EVEN * (gray[1:].size + gray[:, 1:].size))
