"""Boxes drawn on their image, with labels that a person can read.

Reports and ``dfssd predict`` draw alike; the latter also where little more than NumPy and Pillow is installed, so no
drawing library is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

SIDE = 480
"""Longer side of a picture [px]."""
_FONT_SIZE = 15
_LINE = 2
"""Width of a frame [px]."""

Area = tuple[float, float, float, float]
"""x1, y1, x2, y2 [px]."""


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
    """An image of the size of a report's picture, with boxes and their labels.

    Args:
        pixels: (H, W, 3) uint8, RGB; scaled to :data:`SIDE`.
        marks: The boxes.
    """
    scale = SIDE / max(pixels.shape[:2])
    size = tuple(max(1, round(scale * side)) for side in pixels.shape[1::-1])
    scaled = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return draw_marks(Image.fromarray(scaled), marks, line=_LINE, font_size=_FONT_SIZE)


def draw_marks(picture: Image.Image, marks: Sequence[Mark], *, line: int, font_size: int) -> Image.Image:
    """Draw boxes and their labels, which are moved apart where they would cover each other; returns the picture.

    Args:
        picture: What is drawn on.
        marks: The boxes; later ones are drawn above earlier ones.
        line: Width of a frame [px].
        font_size: Of the labels [px].
    """
    draw, font, (width, height) = ImageDraw.Draw(picture), _font(font_size), picture.size
    taken: list[Area] = []
    for mark in marks:
        x1, y1, x2, y2 = (share * side for share, side in zip(mark.corners, (width, height) * 2, strict=True))
        # an end-to-end head that has learned little gives boxes with their corners exchanged
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        draw.rectangle((x1, y1, x2, y2), outline=mark.color, width=line)
        *_, across, down = draw.textbbox((0, 0), mark.text, font=font)
        area = _free_place((x1, y1, x2, y2), (across + 4, down + 3), picture.size, taken)
        taken.append(area)
        draw.rectangle(area, fill=mark.color)
        red, green, blue = ImageColor.getrgb(mark.color)[:3]
        dark = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        draw.text((area[0] + 2, area[1] + 1), mark.text, fill="black" if dark else "white", font=font)
    return picture


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of the figures, which has the letters of many languages; where matplotlib is missing, that of Pillow."""
    try:
        import matplotlib  # predictions are drawn where it may not be installed
    except ImportError:
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _free_place(box: Area, size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Area]) -> Area:
    """Where a label goes: above its box, below it, or inside, the first place that no other label has."""
    x1, y1, x2, y2 = box
    places = [(x1, y1 - size[1]), (x1, y2), (x1, y1), (x2 - size[0], y1 - size[1]), (x2 - size[0], y2)]
    areas = []
    for x, y in places:
        left, top = min(max(x, 0), picture[0] - size[0]), min(max(y, 0), picture[1] - size[1])
        areas.append((left, top, left + size[0], top + size[1]))
    return next((area for area in areas if not any(_meet(area, other) for other in taken)), areas[0])


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
