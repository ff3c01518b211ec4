"""CVAT: an .xml file for many images, exported as "CVAT for images 1.1"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, LabelFile, OtherFile
from dfssd.datasets.readers.json_values import (
    Box,
    Unusable,
    box_around,
    box_around_ellipse,
    clipped,
    first_of,
    image_name,
    name_of,
    number,
    shown,
    stated_size,
    turned,
    with_area,
)
from dfssd.datasets.sources import split_named
from dfssd.wording import counted

_WITHOUT_AREA = {"polyline", "points", "skeleton", "cuboid"}
"""Shapes that do not say where an object ends."""


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
    try:
        names = [image_name(image.get("name"), f"the name of image {i}") for i, image in enumerate(images, 1)]
    except Unusable as e:
        return BrokenFile(file, f"{e}; export the task again")
    split = _split_of_all(root)
    annotations = tuple(_read_image(file, image, name, split) for image, name in zip(images, names, strict=True))
    return LabelFile(file, "cvat", annotations, _names(root), notes=_notes(images))


def _notes(images: Sequence[Element]) -> tuple[str, ...]:
    """What is left out or taken in a certain way."""
    notes = []
    tags = Counter(tag.get("label", "") for image in images for tag in image.findall("tag"))
    if tags:
        labels = first_of([shown(label) for label, _ in tags.most_common()])
        notes.append(f"{counted(tags.total(), 'tag')} of whole images ({labels}) left out")
    if empty := sum(all(shape.tag == "tag" for shape in image) for image in images):
        notes.append(f"{counted(empty, 'image')} without shapes: defect-free")
    return tuple(notes)


def _names(root: Element) -> tuple[str, ...] | None:
    """Labels of the project or task that boxes can have, each once; None if there is no list of them."""
    names: dict[str, None] = {}
    lists = [labels for meta in root.findall("meta") for labels in meta.iter("labels")]
    for label in (label for labels in lists for label in labels.findall("label")):
        name = (label.findtext("name") or "").strip()
        part = (label.findtext("parent") or "").strip()  # a point of a skeleton
        if name and not part and (label.findtext("type") or "").strip() not in _WITHOUT_AREA | {"tag"}:
            names[name] = None
    return tuple(names) if lists else None


def _split_of_all(root: Element) -> str | None:
    """The split of the task, where the file holds one only."""
    subsets = {(element.text or "").strip() for meta in root.findall("meta") for element in meta.iter("subset")}
    return split_named([subset.lower() for subset in subsets]) if len(subsets) == 1 else None


def _read_image(file: Path, image: Element, name: str, split: str | None) -> Annotation:
    place = f": image {shown(name)}"
    if subset := image.get("subset"):
        split = split_named([subset.strip().lower()])
    labels, boxes = [], []
    try:
        size = stated_size(image.get("width"), image.get("height"))
        for shape in image:
            if shape.tag != "tag":
                labels.append(name_of(shape.get("label"), f"the label of a {shape.tag}"))
                boxes.append(_corners(shape, size))
    except Unusable as e:
        return Annotation(file, name, split=split, place=place, problem=str(e))
    rows = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Annotation(file, name, tuple(labels), rows, size=size, split=split, place=place)


def _corners(shape: Element, size: tuple[int, int] | None) -> Box:
    """The box around a shape; one that is not drawn as a plain box may stand out of the image and is cut."""
    what = f"the {shape.tag} of {shown(shape.get('label'))}"
    if shape.tag in _WITHOUT_AREA:
        raise Unusable(f"{what} is no area; draw a box or a polygon instead, or remove it")
    if shape.tag not in _BOXES:
        raise Unusable(f"{what} is no shape of CVAT for images 1.1; export the task again")
    try:
        box = with_area(_BOXES[shape.tag](shape), "it")
        turned_or_round = shape.tag == "ellipse" or _number(shape, "rotation", "0") != 0
        return with_area(clipped(box, size), "its part in the image") if turned_or_round else box
    except Unusable as e:
        raise Unusable(f"{what}: {e}") from None


def _number(shape: Element, name: str, default: str | None = None) -> float:
    return number(shape.get(name, default), f"'{name}'")


def _box(shape: Element) -> Box:
    x1, y1, x2, y2 = with_area(_plain(shape), "it")
    if (degrees := _number(shape, "rotation", "0")) == 0:
        return x1, y1, x2, y2
    return box_around(turned((x1, y1), x2 - x1, y2 - y1, degrees, ((x1 + x2) / 2, (y1 + y2) / 2)))


def _plain(shape: Element) -> Box:
    x1, y1, x2, y2 = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    return x1, y1, x2, y2


def _ellipse(shape: Element) -> Box:
    x, y, rx, ry = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
    return box_around_ellipse((x, y), rx, ry, math.radians(_number(shape, "rotation", "0")))


def _polygon(shape: Element) -> Box:
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise Unusable(f"'points' is {shown(shape.get('points'))}, expected x,y;x,y;x,y and so on")
    return box_around([(number(x, "a coordinate"), number(y, "a coordinate")) for x, y in points])


def _mask(shape: Element) -> Box:
    left, top, width, height = (_number(shape, name) for name in ("left", "top", "width", "height"))
    return left, top, left + width, top + height


_BOXES: dict[str, Callable[[Element], Box]] = {"box": _box, "ellipse": _ellipse, "polygon": _polygon, "mask": _mask}
"""The box around each shape that is an area."""
