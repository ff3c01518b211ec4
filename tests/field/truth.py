"""Boxes held against the pixels that training reads: every box a patch of its class, every patch a box."""

from __future__ import annotations

import cv2
import numpy as np
from ultralytics.utils.patches import imread

from dfssd.datasets.records import Item
from tests.field.builders import NAMES

Corners = tuple[float, float, float, float]


def patches_in(gray: np.ndarray) -> list[tuple[str, Corners]]:
    """Class and corners [px] of each patch that gray pixels (height, width) show."""
    smooth = cv2.blur(gray, (3, 3))
    found = []
    for name, inside in (("bright", smooth > 190), ("dark", smooth < 70)):
        for x, y, w, h, area in cv2.connectedComponentsWithStats(inside.astype(np.uint8))[2][1:].tolist():
            if area >= 25:
                found.append((name, (float(x), float(y), float(x + w), float(y + h))))
    return found


def overlap(a: Corners, b: Corners) -> float:
    """Intersection over union."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return w * h / (sum(areas) - w * h)


def false_boxes(boxes: list[tuple[str, Corners]], gray: np.ndarray) -> list[str]:
    """What is wrong with the boxes (class, corners [px]) of an image, one line each; empty: all true and complete.

    A box is true if the pixels inside have the gray of its class (above 200, below 60), and if it has the place and
    size of a patch.
    """
    wrong = []
    patches = patches_in(gray)
    for name, box in boxes:
        x1, y1, x2, y2 = (round(v) for v in box)
        inside = gray[max(y1, 0) : y2, max(x1, 0) : x2]
        mean = float(inside.mean()) if inside.size else 128.0
        if not (mean > 200 if name == "bright" else mean < 60):
            wrong.append(f"{name} {x1} {y1} {x2} {y2}: mean gray {mean:.0f}")
        same = [patch for patch in patches if patch[0] == name and overlap(patch[1], box) > 0.7]
        if not same:
            wrong.append(f"{name} {x1} {y1} {x2} {y2}: no such patch among {patches}")
        patches = [patch for patch in patches if patch not in same]
    return wrong + [f"without a box: {patch}" for patch in patches]


def looks(names: tuple[str, ...]) -> tuple[str, ...]:
    """What each class looks like: as its name says or, if the names are other ones, in the usual order."""
    return names if set(NAMES) & set(names) else NAMES


def false_labels(item: Item, names: tuple[str, ...]) -> list[str]:
    """What is wrong with the boxes of an image as Ultralytics reads it; ``names`` say what the classes look like."""
    pixels = imread(item.image)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return [f"{item.image}: not read as 8-bit color"]
    height, width = pixels.shape[:2]
    if item.size is not None and item.size != (width, height):
        return [f"{item.image}: said to be {item.size}, but has {width}x{height} px"]
    assert item.boxes is not None
    boxes = [
        (names[int(i)], ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height))
        for i, x, y, w, h in item.boxes.astype(float).tolist()
    ]
    return [f"{item.image.name}: {line}" for line in false_boxes(boxes, pixels.mean(axis=2))]
