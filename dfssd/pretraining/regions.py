"""Regions of an image that stand out from their surroundings: boxes without labels, and without a network.

A detector that learns to find such regions learns where things begin and end before it sees a label. That is how DETReg
(arXiv:2106.04550) and CutLER (arXiv:2301.11320) pretrain detectors on what they discover in photographs, and how AGSSP
(arXiv:2509.18919) does it on steel, where the regions are maps of anomalies.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

SIDE = 200
"""Longer side of the image in which regions are searched [px]."""

SURROUNDINGS = 51
"""Side of the window whose median is the background of a pixel [px of the small image]."""

GRAIN = 1.0, 1.5
"""Deviations of the Gaussians that smooth the difference from the background, and that part smooth from rough [px]."""

NOISE = 0.5
"""What every surface varies by, at least [gray levels]."""

SALIENT = 5.0
"""A pixel stands out whose deviation is that many times what is usual in its image."""

EDGE = 0.3
"""Share of its strongest deviation at which a region ends, which is within a pixel or two of a sharp edge."""

GAP = 7
"""Parts at most about so far from each other belong together [px of the small image]."""

LEAST_SIDE, LEAST_AREA, MOST_AREA = 2, 12, 0.6
"""Smallest side [px] and area [px], and largest share of the image, of a region."""

MOST = 20
"""Regions of an image, the largest first."""


def salient_regions(gray: np.ndarray) -> np.ndarray:
    """Boxes around what stands out in an image.

    Two maps are looked at: how much brighter or darker than its surroundings a place is, and how rough it is. Each is
    put in units of what is usual in this image, by median m and median absolute deviation: ``(v - m) / (1.48 MAD +
    NOISE)``, so that grain and faint stripes do not count, however strong, if they are everywhere.

    Args:
        gray: (H, W) uint8.

    Returns:
        (k, 4) float32, k <= :data:`MOST`: xywh, center format, shares of the image; the largest region first.
    """
    height, width = gray.shape
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    found = _boxes(_salience(small))
    corners, extents = found[:, :2], found[:, 2:]
    return ((np.concatenate([corners + extents / 2, extents], 1)) / np.tile(size, 2)).astype(np.float32)


def _salience(small: np.ndarray) -> np.ndarray:
    """How much each pixel stands out, in units of what is usual: (h, w) uint8 -> (h, w) float32."""
    background = cv2.GaussianBlur(cv2.medianBlur(small, SURROUNDINGS).astype(np.float32), (0, 0), 4)
    difference = small.astype(np.float32) - background
    level = cv2.GaussianBlur(difference, (0, 0), GRAIN[0])
    rough = difference - cv2.GaussianBlur(difference, (0, 0), GRAIN[1])
    roughness = np.sqrt(cv2.GaussianBlur(rough**2, (0, 0), GRAIN[1]))
    salience: np.ndarray = np.maximum(np.abs(_in_usual_units(level)), _in_usual_units(roughness))
    return salience


def _in_usual_units(values: np.ndarray) -> np.ndarray:
    middle = np.median(values)
    usual = 1.4826 * np.median(np.abs(values - middle)) + NOISE
    units: np.ndarray = (values - middle) / usual
    return units


def _boxes(salience: np.ndarray) -> np.ndarray:
    """Boxes of the regions of a map (h, w): (k, 4), left, top, width, height [px].

    A region is a connected part above :data:`SALIENT`, small gaps closed; its box holds what exceeds :data:`EDGE` of
    its strongest deviation. Without that a strong one would look larger than it is, by what smoothing adds around it.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GAP, GAP))
    joined = cv2.morphologyEx((salience > SALIENT).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    count, parts = cv2.connectedComponents(joined, connectivity=8)
    if count == 1:  # the background alone
        return np.zeros((0, 4), np.int64)
    strongest = np.concatenate([[0.0], ndimage.maximum(salience, parts, np.arange(1, count))])
    inside = parts * (salience > np.maximum(SALIENT, EDGE * strongest[parts]))
    areas = np.bincount(parts.ravel(), minlength=count)[1:]
    found = []
    for place, area in zip(ndimage.find_objects(inside, max_label=count - 1), areas, strict=True):
        if place is None or area < LEAST_AREA:  # nothing but a gap that was closed
            continue
        rows, columns = place
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        if min(box[2:]) >= LEAST_SIDE and box[2] * box[3] < MOST_AREA * salience.size:
            found.append((-area, box))
    return np.array([box for _, box in sorted(found)[:MOST]], np.int64).reshape(-1, 4)
