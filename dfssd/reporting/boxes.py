"""Boxes drawn on their image, with labels that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image

SIDE = 480
"""Longer side of a picture [px]."""
_FONT_SIZE = 15
_LINE = 2
"""Width of a frame [px]."""


@dataclass(frozen=True)
class Mark:
    """A box and what is said of it.

    Attributes:
        corners: x1, y1, x2, y2 as shares of the width and the height of the image.
        text: Its label.
        color: ``#rrggbb``.
    """

    corners: tuple[float, float, float, float]
    text: str
    color: str


def annotated(pixels: np.ndarray, marks: Sequence[Mark]) -> Image.Image:
    """An image with boxes and their labels, which are moved apart where they would cover each other.

    Args:
        pixels: (H, W, 3) uint8, RGB; scaled to :data:`SIDE`.
        marks: The boxes.
    """
    import supervision as sv  # seconds

    scale = SIDE / max(pixels.shape[:2])
    size = tuple(max(1, round(scale * side)) for side in pixels.shape[1::-1])
    scaled = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    picture = Image.fromarray(scaled)
    if not marks:
        return picture
    corners = np.array([mark.corners for mark in marks], float) * np.array([*size, *size])
    found = sv.Detections(xyxy=corners, class_id=np.arange(len(marks)))
    colors, by_index = sv.ColorPalette.from_hex([mark.color for mark in marks]), sv.ColorLookup.INDEX
    font = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    picture = sv.BoxAnnotator(colors, _LINE, by_index).annotate(picture, found)
    labels = sv.RichLabelAnnotator(
        colors, by_index, font_path=font, font_size=_FONT_SIZE, text_padding=3, smart_position=True
    )
    drawn: Image.Image = labels.annotate(picture, found, labels=[mark.text for mark in marks])
    return drawn
