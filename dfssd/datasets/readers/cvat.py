"""CVAT: an .xml file for many images, exported as "CVAT for images 1.1"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, LabelFile, OtherFile
from dfssd.datasets.sources import split_named

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 [px]."""

_WITHOUT_BOX = {"polyline", "points", "skeleton", "cuboid"}
"""Shapes that do not say where an object ends."""

_TYPES_WITHOUT_BOX = {"tag", "polyline", "points", "skeleton", "cuboid"}
"""Types of labels that no box can have."""


def read_cvat(file: Path, root: Element) -> LabelFile | BrokenFile | OtherFile:
    """The boxes of all images.

    Polygons, ellipses, masks and rotated boxes become the box around them. An image that is listed without shapes is
    free of defects. A shape that is no area (points, lines, skeletons, cuboids) makes its image unusable; tags, which
    belong to a whole image, are left out and noted.

    Args:
        file: The file, for messages.
        root: Its ``<annotations>``.
    """
    if root.find("track") is not None:
        return BrokenFile(file, "holds tracks of a video; export the task as 'CVAT for images 1.1' instead")
    images = root.findall("image")
    if not images and root.find("meta") is None:
        return OtherFile(file, "XML without anything of CVAT")
    if nameless := [number for number, image in enumerate(images, 1) if not _name(image)]:
        return BrokenFile(file, f"image {nameless[0]} of {len(images)} has no name; export the task again")
    split = _split_of_all(root)
    annotations = tuple(_read_image(file, image, split) for image in images)
    tags = Counter(tag.get("label", "") for image in images for tag in image.findall("tag"))
    shown = ", ".join(f"'{name}'" for name, _ in tags.most_common(3))
    notes = (f"{tags.total()} tags of whole images ({shown}) left out",) if tags else ()
    return LabelFile(file, "cvat", annotations, _names(root), notes=notes)


def _names(root: Element) -> tuple[str, ...] | None:
    """Labels of the project or task that boxes can have, each once; None if there is no list of them."""
    names: dict[str, None] = {}
    lists = [labels for meta in root.findall("meta") for labels in meta.iter("labels")]
    for label in (label for labels in lists for label in labels.findall("label")):
        name = (label.findtext("name") or "").strip()
        part = (label.findtext("parent") or "").strip()  # a point of a skeleton
        if name and not part and (label.findtext("type") or "").strip() not in _TYPES_WITHOUT_BOX:
            names[name] = None
    return tuple(names) if lists else None


def _split_of_all(root: Element) -> str | None:
    """The split of the task, where the file holds one only."""
    subsets = {(element.text or "").strip() for meta in root.findall("meta") for element in meta.iter("subset")}
    return split_named([subset.lower() for subset in subsets]) if len(subsets) == 1 else None


def _name(image: Element) -> str:
    """Path of the image below the folder of the task."""
    return (image.get("name") or "").strip().replace("\\", "/")


def _read_image(file: Path, image: Element, split: str | None) -> Annotation:
    name = _name(image)
    place = f": image '{name}'"
    if subset := image.get("subset"):
        split = split_named([subset.strip().lower()])
    labels, boxes = [], []
    try:
        for shape in image:
            if shape.tag in _WITHOUT_BOX:
                raise ValueError(
                    f"{shape.tag} of '{shape.get('label')}' is no area; draw a box or polygon instead, or remove it"
                )
            if shape.tag == "tag":
                continue
            if shape.tag not in _CORNERS:
                raise ValueError(f"<{shape.tag}> is no shape of CVAT for images 1.1; export the task again")
            label, box = _read_shape(shape)
            labels.append(label)
            boxes.append(box)
    except ValueError as e:
        return Annotation(file, name, split=split, place=place, problem=str(e))
    rows = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Annotation(file, name, tuple(labels), rows, size=_size(image), split=split, place=place)


def _read_shape(shape: Element) -> tuple[str, Corners]:
    label = (shape.get("label") or "").strip()
    if not label:
        raise ValueError(f"{shape.tag} without label; give it one")
    try:
        x1, y1, x2, y2 = _CORNERS[shape.tag](shape)
    except ValueError as e:
        raise ValueError(f"{shape.tag} of '{label}': {e}; correct it in CVAT") from None
    if not (x1 < x2 and y1 < y2):
        raise ValueError(
            f"{shape.tag} of '{label}' has no area (x1 y1 x2 y2 = {x1:g} {y1:g} {x2:g} {y2:g}); remove or correct it"
        )
    return label, (x1, y1, x2, y2)


def _number(shape: Element, name: str, default: str | None = None) -> float:
    return _finite(shape.get(name, default) or "", name)


def _finite(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} '{text}' is not a number")
    return value


def _box(shape: Element) -> Corners:
    left, top, right, bottom = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    rotation = _number(shape, "rotation", "0")
    if rotation % 180 == 0:
        return left, top, right, bottom
    cos, sin = abs(math.cos(math.radians(rotation))), abs(math.sin(math.radians(rotation)))
    if rotation % 90 == 0:
        cos, sin = 0.0, 1.0
    w, h = right - left, bottom - top
    return _around((left + right) / 2, (top + bottom) / 2, (w * cos + h * sin) / 2, (w * sin + h * cos) / 2)


def _ellipse(shape: Element) -> Corners:
    x, y, rx, ry = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
    angle = math.radians(_number(shape, "rotation", "0"))
    half_width = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    half_height = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return _around(x, y, half_width, half_height)


def _around(x: float, y: float, half_width: float, half_height: float) -> Corners:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _polygon(shape: Element) -> Corners:
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise ValueError("points are not x,y;x,y;...")
    xs, ys = ([_finite(point[axis], "coordinate") for point in points] for axis in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def _mask(shape: Element) -> Corners:
    left, top, width, height = (_number(shape, name) for name in ("left", "top", "width", "height"))
    return left, top, left + width, top + height


_CORNERS: dict[str, Callable[[Element], Corners]] = {
    "box": _box,
    "ellipse": _ellipse,
    "polygon": _polygon,
    "mask": _mask,
}
"""The box around each shape that is an area."""


def _size(image: Element) -> tuple[int, int] | None:
    """(width, height) [px] as stated; None if one of them is missing or 0."""
    try:
        width, height = int(image.get("width", "")), int(image.get("height", ""))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None
