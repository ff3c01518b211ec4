"""Boxes drawn over an image, with class and score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfssd.reporting.overlays import class_colors

Area = tuple[float, float, float, float]


def drawn(pixels: np.ndarray, boxes: np.ndarray, names: Mapping[int, str]) -> Image.Image:
    """An image with its boxes.

    Args:
        pixels: (h, w, 3) uint8, BGR.
        boxes: (n, 6) rows x1, y1, x2, y2 [px], score, class id.
        names: Of the classes, by id.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    draw = ImageDraw.Draw(picture)
    line = max(1, round(min(picture.size) / 250))
    font = ImageFont.load_default(max(10, round(min(picture.size) / 35)))
    colors = class_colors(len(names) + 1)[1:]
    taken: list[Area] = []
    for *corners, score, class_id in boxes[::-1].tolist():  # the best one last, above the others
        color = tuple(int(value) for value in colors[int(class_id)])
        draw.rectangle(corners, outline=color, width=line)
        text = f"{names[int(class_id)]} {score:.2f}"
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        area = _free_place(corners, (width + 4, height + 3), picture.size, taken)
        taken.append(area)
        draw.rectangle(area, fill=color)
        dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        draw.text((area[0] + 2, area[1] + 1), text, fill="black" if dark else "white", font=font)
    return picture


def _free_place(box: list[float], size: tuple[float, float], picture: tuple[int, int], taken: list[Area]) -> Area:
    """Where a label goes: above its box, below it, or inside, the first place that no other label has."""
    x1, y1, x2, y2 = box
    places = [(x1, y1 - size[1]), (x1, y2), (x1, y1), (x2 - size[0], y1 - size[1]), (x2 - size[0], y2)]
    areas = []
    for left, top in places:
        left, top = min(max(left, 0), picture[0] - size[0]), min(max(top, 0), picture[1] - size[1])
        areas.append((left, top, left + size[0], top + size[1]))
    return next((area for area in areas if not any(_meet(area, other) for other in taken)), areas[0])


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
