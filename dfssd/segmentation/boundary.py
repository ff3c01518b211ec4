"""Distance maps of a mask for the boundary loss (Kervadec et al., MIDL 2019, arXiv:1812.07032)."""

from __future__ import annotations

import cv2
import numpy as np

from dfssd.datasets.records import IGNORE


def distance_maps(mask: np.ndarray, nc: int) -> np.ndarray:
    """Signed distance of each pixel to each class but the background.

        phi_c = d(x, class c)               >= 1   outside of class c
        phi_c = 1 - d(x, not class c)       <= 0   inside; 0 along the inner border

    with d the Euclidean distance [px] between the centers of pixels. A class that the mask does not hold has no border,
    and neither has one that covers all known pixels: phi_c is 0 everywhere, and the boundary loss ignores the class.
    Ignored pixels are 0, and neither inside nor outside for the others: padding a mask with them moves no border.

    The published maps are truncated to whole numbers and computed before augmentation; these are neither.

    Args:
        mask: Class ids, (H, W), integer: 0 is the background, 1 to nc - 1 are defects, 255 is ignored.
        nc: Classes with the background.

    Returns:
        (nc - 1, H, W) float32; row c - 1 belongs to class c.

    Raises:
        ValueError: ``mask`` is no (H, W) array of integers, or holds another id.
    """
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"a mask must be an (H, W) array of integers, not {mask.shape} of {mask.dtype}")
    ids = np.unique(mask)
    wrong = [int(k) for k in ids if not 0 <= k < nc and k != IGNORE]
    if wrong:
        raise ValueError(f"the mask holds ids {wrong}, but only 0 to {nc - 1} and {IGNORE} (ignored) are valid")
    maps = np.zeros((nc - 1, *mask.shape), np.float32)
    known = mask != IGNORE
    for c in ids:
        inside = mask == c
        outside = known & ~inside
        if 0 < c < nc and outside.any():
            maps[c - 1] = np.where(inside, 1 - _distance_to(outside), _distance_to(inside)) * known
    return maps


def _distance_to(region: np.ndarray) -> np.ndarray:
    """Distance [px] of each pixel to the nearest one of a region that is not empty; (H, W) bool -> (H, W) float32.

    The square of a distance is a whole number. OpenCV's roots differ in their last bits from call to call, with the
    place of the mask in memory; the root of the nearest whole number is always the same.
    """
    found = cv2.distanceTransform((~region).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(np.square(found, dtype=np.float64))).astype(np.float32)
