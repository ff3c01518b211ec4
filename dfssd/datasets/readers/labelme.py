"""LabelMe and X-AnyLabeling: one .json file per image, a list of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.annotations import Annotation, LabelFile
from dfssd.datasets.readers.json_values import (
    Box,
    Unusable,
    box_around,
    clipped,
    first_of,
    image_name,
    name_of,
    points_of,
    shown,
    stated_size,
    with_area,
)
from dfssd.wording import counted

_POINTS = {"rectangle": (2, 4), "circle": (2,), "mask": (2,), "rotation": (4,), "oriented_rectangle": (4,)}
"""How many points define a shape of each kind; a polygon or a quadrilateral has at least three."""

_OUTLINES = ("polygon", "quadrilateral")
_TURNED = ("rotation", "oriented_rectangle")
_WITHOUT_AREA = ("point", "points", "line", "linestrip")

TURNED = "turned boxes: the upright box around each is taken"
GROUPED = "shapes of one group (group_id) and class count as one object"
KEYPOINTS = "points and lines that share the group (group_id) of a box left out as keypoints"


def is_labelme(content: object) -> bool:
    """Whether the content of a .json file is that of a LabelMe file, be it damaged."""
    beside = {"imagePath", "imageData", "imageHeight", "imageWidth", "flags"}
    return isinstance(content, dict) and "shapes" in content and not beside.isdisjoint(content)


def read_labelme(file: Path, content: dict[str, Any]) -> LabelFile:
    """Read the shapes of an image; without any, it is free of defects.

    The box of a polygon, a mask, a circle or a turned rectangle is the upright one around it. Shapes of one
    ``group_id`` and class are one object, as in the tool's own conversions.

    Args:
        file: The file, for messages.
        content: What it holds.
    """
    image, notes = None, set[str]()
    try:
        if content.get("imagePath"):
            image = image_name(content["imagePath"], "'imagePath'")
        size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
        objects = _join(_read_shapes(content["shapes"], size, notes), notes)
    except Unusable as e:
        return LabelFile(file, "labelme", (Annotation(file, image, problem=str(e)),))
    if not objects and (flags := _true_flags(content.get("flags"))):
        notes.add(f"no shape, but {first_of(flags)} among its flags: defect-free")
    boxes = np.array([box for _, box in objects], dtype=np.float64).reshape(-1, 4)
    annotation = Annotation(file, image, tuple(name for name, _ in objects), boxes, size=size)
    return LabelFile(file, "labelme", (annotation,), notes=tuple(sorted(notes)))


def _read_shapes(shapes: Any, size: tuple[int, int] | None, notes: set[str]) -> list[tuple[str, Box, str | None]]:
    """Class, box and group of each shape that has an area."""
    if not isinstance(shapes, list):
        raise Unusable(f"'shapes' is {shown(shapes)}, expected a list")
    found, flat = [], []
    for index, shape in enumerate(shapes):
        try:
            if not isinstance(shape, dict):
                raise Unusable(f"expected an object, not {shown(shape)}")
            name, group = name_of(shape.get("label"), "'label'"), _group(shape.get("group_id"))
            kind = shape.get("shape_type") or "polygon"
            if kind in _WITHOUT_AREA:
                flat.append((index, name, kind, group))
                continue
            found.append((name, _box(kind, shape.get("points"), size), group))
            if kind in _TURNED:
                notes.add(TURNED)
        except Unusable as e:
            raise Unusable(f"shapes[{index}]: {e}") from None
    groups = {group for _, _, group in found}
    for index, name, kind, group in flat:
        if group is None or group not in groups:
            raise Unusable(
                f"shapes[{index}]: {shown(name)} is a {kind}, which has no area; draw a box or a polygon, or remove it"
            )
        notes.add(KEYPOINTS)
    return found


def _box(kind: Any, values: Any, size: tuple[int, int] | None) -> Box:
    points = points_of(values, "'points'")
    if kind in _OUTLINES:
        if len(points) < 3:
            raise Unusable(f"a {kind} has {counted(len(points), 'point')}, expected at least 3")
    elif not isinstance(kind, str) or kind not in _POINTS:
        raise Unusable(f"shape_type {shown(kind)} is not known; draw a box or a polygon, or remove it")
    elif len(points) not in _POINTS[kind]:
        raise Unusable(f"a {kind} has {counted(len(points), 'point')}, expected {' or '.join(map(str, _POINTS[kind]))}")
    box = box_around(points)
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "mask":  # its points are its first and last pixels
        box = (box[0], box[1], box[2] + 1, box[3] + 1)
    if kind in ("circle", "mask", "quadrilateral", *_TURNED):
        box = clipped(box, size)
    return with_area(box, f"the {kind}")


def _true_flags(flags: Any) -> list[str]:
    """What somebody has ticked for the image as a whole."""
    return [shown(key) for key, value in flags.items() if value is True] if isinstance(flags, dict) else []


def _group(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, (list, dict)):
        raise Unusable(f"'group_id' is {shown(value)}, expected a number")
    return str(value)


def _join(shapes: Iterable[tuple[str, Box, str | None]], notes: set[str]) -> list[tuple[str, Box]]:
    """Class and box of each object."""
    objects: dict[object, tuple[str, Box]] = {}
    for index, (name, box, group) in enumerate(shapes):
        key = index if group is None else (name, group)
        if key in objects:
            notes.add(GROUPED)
            known = objects[key][1]
            box = box_around([known[:2], known[2:], box[:2], box[2:]])
        objects[key] = (name, box)
    return list(objects.values())
