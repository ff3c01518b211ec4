"""Whether two image files show the same picture, one of them perhaps compressed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.images.pixels import read_pixels
from dfssd.errors import UserError

SAME_GRAY = 4.0
"""Mean difference of values (0-255) below which two files of one size may be the same picture: one may be a JPEG."""

SAME_SPOT = 5.0
"""Likewise the largest difference of the mean gray values of 8x8 px, which compression hardly changes (4.2 at quality
40): two photos of a smooth surface differ in their defects alone, and these are few of all pixels."""


def same_picture(a: Path, b: Path) -> bool:
    """Whether two image files show the same pixels, up to what compression changes."""
    try:
        first, second = read_pixels(a), read_pixels(b)
    except UserError:
        return False
    if first.shape != second.shape or float(cv2.absdiff(first, second).mean()) >= SAME_GRAY:
        return False
    gray, other = (
        cv2.blur(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(np.float32), (8, 8)) for pixels in (first, second)
    )
    return float(cv2.absdiff(gray, other).max()) < SAME_SPOT
