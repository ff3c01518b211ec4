"""VGG Image Annotator (VIA 1 and 2): annotations or a project as JSON, regions in pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, Found, LabelFile, OtherFile
from dfssd.datasets.readers.json_values import (
    Box,
    Unusable,
    box_around,
    box_around_ellipse,
    first_of,
    image_name,
    name_of,
    number,
    numbers,
    shown,
    with_area,
)
from dfssd.wording import counted

_CLASS_NAMES = ("class", "label", "name", "type", "category", "defect")
"""How the attribute that holds the class may be called where there are several."""


def is_via(content: object) -> bool:
    """Whether the content of a .json file is that of a VIA file, be it damaged."""
    if not isinstance(content, dict):
        return False
    return "_via_img_metadata" in content or any(
        isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in content.values()
    )


def read_via(file: Path, content: dict[str, Any]) -> Found:
    """Read the regions of all images; an image without regions is free of defects.

    The class of a region is its only attribute, or the one with a usual name such as ``class`` or ``label``.

    Args:
        file: The file, for messages.
        content: What it holds.
    """
    found = []
    try:
        images = content.get("_via_img_metadata", content)
        if not isinstance(images, dict):
            raise Unusable(f"'_via_img_metadata' is {shown(images)}, expected an object")
        if not images:
            return OtherFile(file, "it lists no images")
        entries = [(key, _entry(entry, key)) for key, entry in images.items()]
        attribute = _class_attribute(region for _, (_, regions) in entries for region in regions)
        for _, (image, regions) in entries:
            found.append(_read_image(file, image, regions, attribute))
    except Unusable as e:
        return BrokenFile(file, f"is not valid VIA: {e}; export it again, or correct it")
    empty = [annotation for annotation in found if not annotation.problem and not annotation.labels]
    notes = (f"{counted(len(empty), 'image')} without regions: defect-free",) if empty else ()
    return LabelFile(file, "via", tuple(found), notes=notes)


def _entry(entry: Any, key: str) -> tuple[str, list[Any]]:
    """Image and regions; VIA 1 numbers them in an object."""
    if not isinstance(entry, dict):
        raise Unusable(f"{shown(key)} is {shown(entry)}, expected an image with regions")
    regions = entry.get("regions")
    if isinstance(regions, dict):
        regions = list(regions.values())
    if not isinstance(regions, list):
        raise Unusable(f"'regions' of {shown(key)} is {shown(regions)}, expected a list")
    return image_name(entry.get("filename"), f"'filename' of {shown(key)}"), regions


def _class_attribute(regions: Iterable[Any]) -> str | None:
    """The attribute that holds the class; None if no region has attributes."""
    names: dict[str, None] = {}
    for region in regions:
        attributes = region.get("region_attributes") if isinstance(region, dict) else None
        names.update(dict.fromkeys(attributes if isinstance(attributes, dict) else ()))
    usual = [name for name in names if name.strip().lower() in _CLASS_NAMES]
    if len(names) == 1 or not names:
        return next(iter(names), None)
    if len(usual) != 1:
        raise Unusable(
            f"its regions have the attributes {first_of([shown(name) for name in names])}, and it is not clear which "
            "is the class; call that one 'class', or leave the others out"
        )
    return usual[0]


def _read_image(file: Path, image: str, regions: list[Any], attribute: str | None) -> Annotation:
    place = f": image {shown(image)}"
    labels, boxes = [], []
    try:
        for index, region in enumerate(regions):
            try:
                shape = region.get("shape_attributes") if isinstance(region, dict) else None
                if not isinstance(shape, dict):
                    raise Unusable(f"{shown(region)} has no 'shape_attributes'")
                boxes.append(with_area(_box(shape), f"the {shape['name']}"))
                attributes = region.get("region_attributes")
                value = attributes.get(attribute) if isinstance(attributes, dict) and attribute else None
                labels.append(name_of(value, f"the attribute {shown(attribute)}" if attribute else "its class"))
            except Unusable as e:
                raise Unusable(f"region {index + 1}: {e}") from None
    except Unusable as e:
        return Annotation(file, image, place=place, problem=str(e))
    return Annotation(file, image, tuple(labels), np.array(boxes, dtype=np.float64).reshape(-1, 4), place=place)


def _box(shape: dict[str, Any]) -> Box:
    kind = shape.get("name")

    def values(*keys: str) -> list[float]:
        return [number(shape.get(key), repr(key)) for key in keys]

    if kind == "rect":
        x, y, w, h = values("x", "y", "width", "height")
        return x, y, x + w, y + h
    if kind == "circle":
        x, y, r = values("cx", "cy", "r")
        return x - r, y - r, x + r, y + r
    if kind == "ellipse":
        x, y, rx, ry = values("cx", "cy", "rx", "ry")
        return box_around_ellipse((x, y), rx, ry, number(shape.get("theta") or 0, "'theta'"))
    if kind == "polygon":
        xs, ys = (numbers(shape.get(key), repr(key)) for key in ("all_points_x", "all_points_y"))
        if len(xs) != len(ys) or len(xs) < 3:
            raise Unusable(f"its polygon has {len(xs)} x and {len(ys)} y, expected at least 3 points")
        return box_around(zip(xs, ys, strict=True))
    if kind in ("point", "polyline"):
        raise Unusable(f"it is a {kind}, which has no area; draw a box or a polygon, or remove it")
    raise Unusable(f"its shape is {shown(kind)}, expected a rectangle, polygon, circle or ellipse")
