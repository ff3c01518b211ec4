"""What a network has found, drawn over its image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from dfssd.reporting.boxes import Mark, draw_marks
from dfssd.reporting.overlays import class_colors


def colors_of_classes(count: int) -> list[str]:
    """The color of each class, ``#rrggbb``, by id."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in class_colors(count + 1)[1:].tolist()]


def drawn(pixels: np.ndarray, boxes: np.ndarray, names: Mapping[int, str]) -> Image.Image:
    """An image with its boxes, each in the color of its class.

    Args:
        pixels: (h, w, 3) uint8, BGR.
        boxes: (n, 6) rows x1, y1, x2, y2 [px], score, class id.
        names: Of the classes, by id.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    width, height = picture.size
    colors = colors_of_classes(len(names))
    marks = []
    for x1, y1, x2, y2, score, class_id in boxes[::-1].tolist():  # the best one last, above the others
        corners = (x1 / width, y1 / height, x2 / width, y2 / height)
        marks.append(Mark(corners, f"{names[int(class_id)]} {score:.2f}", colors[int(class_id)]))
    side = min(picture.size)
    return draw_marks(picture, marks, line=max(1, round(side / 250)), font_size=max(10, round(side / 35)))
