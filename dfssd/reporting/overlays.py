"""Colors of classes, and masks drawn over their images."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from dfssd.datasets.records import IGNORE

OPACITY = 0.55
"""Of a class over the gray image."""

_CLASSES = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2")
"""Distinguishable with color blindness, too (Okabe and Ito)."""


def class_colors(nc: int) -> np.ndarray:
    """(nc, 3) uint8, a color for each class; that of the background, id 0, is never drawn."""
    if nc - 1 <= len(_CLASSES):
        colors = [[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in _CLASSES[: nc - 1]]
    else:  # as many hues, the neighbors dark and light in turn
        hues = (colorsys.hsv_to_rgb(i / (nc - 1), 1.0, 1.0 if i % 2 else 0.7) for i in range(nc - 1))
        colors = [[round(255 * share) for share in hue] for hue in hues]
    return np.array([[0, 0, 0], *colors], np.uint8)


def overlay(gray: np.ndarray, ids: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A mask over its image: each defect in its color, the background as it is, ignored pixels striped.

    Args:
        gray: Image, (H, W) uint8.
        ids: Class ids, (H, W) uint8; those without a color are left as they are.
        colors: Of each class, (nc, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    colored = np.repeat(gray[..., None], 3, 2)
    defect = (ids > 0) & (ids < len(colors))
    blend = (1 - OPACITY) * colored[defect] + OPACITY * colors[ids[defect]]
    colored[defect] = blend.round().astype(np.uint8)
    return _with_ignored(colored, ids)


def outlined(gray: np.ndarray, ids: np.ndarray, colors: np.ndarray, thickness: int) -> np.ndarray:
    """The borders of a mask over its image, so that one sees whether they run along the defects.

    Args:
        gray: Image, (H, W) uint8.
        ids: Class ids, (H, W) uint8; those without a color are left as they are.
        colors: Of each class, (nc, 3) uint8.
        thickness: Of a border, inside of its region [px].

    Returns:
        (H, W, 3) uint8.
    """
    colored = np.repeat(gray[..., None], 3, 2)
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), dtype=np.uint8)
    border = (cv2.erode(ids, kernel) != ids) | (cv2.dilate(ids, kernel) != ids)
    border &= (ids > 0) & (ids < len(colors))
    colored[border] = colors[ids[border]]
    return _with_ignored(colored, ids)


def _with_ignored(colored: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Ignored pixels striped."""
    rows, columns = np.nonzero(ids == IGNORE)
    stripe = max(2, max(ids.shape) // 60)
    colored[rows, columns] = np.where((rows + columns) // stripe % 2, 255, 128)[:, None]
    return colored
