"""Views of a training image: the eight symmetries of the square, and random color jitter.

Surfaces have no up and down, so each symmetry could as well have been photographed. Masks and maps move with the image
pixel by pixel; nothing is interpolated.
"""

from __future__ import annotations

import random

import albumentations as A
import cv2
import numpy as np

from dfssd.datasets.records import IGNORE

PADDING = 114
"""Gray of the padding around an image, as in Ultralytics' letterbox."""


class Views:
    """Random views of an image with its mask.

    The random numbers come from Python's ``random``, which Ultralytics seeds in every loader worker.

    Attributes:
        symmetries: Whether all eight symmetries are used.
        colors: The transforms of colors, which move nothing.
    """

    def __init__(self, *, symmetries: bool, jitter: float):
        """Set the transforms.

        Args:
            symmetries: Rotate by quarter turns and mirror, all eight results equally often.
            jitter: Probability, in [0, 1], of color jitter: brightness, contrast and saturation by factors of 0.76
                to 1.24, hue by up to 0.06 of the circle.

        Raises:
            ValueError: ``jitter`` is outside its range.
        """
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter={jitter} must be in [0, 1]")
        strength = {"brightness": (0.76, 1.24), "contrast": (0.76, 1.24), "saturation": (0.76, 1.24)}
        self.symmetries = symmetries
        self.colors: list[A.BasicTransform] = [A.ColorJitter(**strength, hue=(-0.06, 0.06), p=jitter)]
        self.transform = A.Compose([*self.colors, A.D4(p=1)] if symmetries else self.colors)

    def __call__(self, image: np.ndarray, masks: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """One view.

        Args:
            image: (S, S, 3) uint8, RGB.
            masks: Arrays (S, S), uint8 or float32, that belong to its pixels.

        Returns:
            The image and the arrays, transformed alike; the given ones are not changed.
        """
        seed = random.getrandbits(32)
        # One source for both: with a seed, each would get its own, and both would draw the same numbers.
        self.transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        seen = self.transform(image=image, masks=masks)
        return seen["image"], list(seen["masks"])


def pad_to_square(image: np.ndarray, mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Center an image in a square, so that images of all shapes fit one batch.

    Args:
        image: (h, w, 3) uint8.
        mask: Class ids (h, w), uint8.
        side: Of the square [px], at least h and w.

    Returns:
        Image (side, side, 3) padded with gray, mask (side, side) padded with ignored pixels, and (side, side) uint8,
        1 on the image and 0 around it.
    """
    real = np.ones(mask.shape, np.uint8)
    return center(image, side, PADDING), center(mask, side, IGNORE), center(real, side, 0)


def center(array: np.ndarray, side: int, around: int) -> np.ndarray:
    """Center an array (h, w) or (h, w, 3) in a square of another value; itself if it is that square."""
    h, w = array.shape[:2]
    top, left = (side - h) // 2, (side - w) // 2
    edges = (top, side - h - top, left, side - w - left)
    return cv2.copyMakeBorder(array, *edges, cv2.BORDER_CONSTANT, value=(around,) * 3) if any(edges) else array
