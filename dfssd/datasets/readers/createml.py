"""Create ML, as LabelImg and Roboflow write it: one .json file for many images, centers and sizes in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, Found, LabelFile
from dfssd.datasets.readers.json_values import Box, Unusable, image_name, name_of, number, shown, with_area


def is_createml(content: object) -> bool:
    """Whether the content of a .json file is that of a Create ML file, be it damaged."""
    return isinstance(content, list) and any(
        isinstance(entry, dict)
        and isinstance(entry.get("image", entry.get("imagefilename")), str)
        and _are_boxes(_annotations(entry))
        for entry in content
    )


def read_createml(file: Path, content: list[Any]) -> Found:
    """Read Create ML labels; an image without annotations is free of defects.

    Args:
        file: The file, for messages.
        content: What it holds.
    """
    found = []
    try:
        for index, entry in enumerate(content):
            if not isinstance(entry, dict):
                raise Unusable(f"entry {index + 1} is {shown(entry)}, expected an image with annotations")
            image = image_name(entry.get("image", entry.get("imagefilename")), f"the image of entry {index + 1}")
            found.append(_read_image(file, image, _annotations(entry)))
    except Unusable as e:
        return BrokenFile(file, f"is not valid Create ML: {e}; export it again, or correct it")
    return LabelFile(file, "createml", tuple(found))


def _are_boxes(annotations: Any) -> bool:
    """Whether it is a list of annotations of this format, or an empty one."""
    return isinstance(annotations, list) and all(isinstance(a, dict) and "coordinates" in a for a in annotations[:1])


def _annotations(entry: dict[str, Any]) -> Any:
    return entry.get("annotations", entry.get("annotation"))


def _read_image(file: Path, image: str, annotations: Any) -> Annotation:
    place = f": image {shown(image)}"
    labels, boxes = [], []
    try:
        if not isinstance(annotations, list):
            raise Unusable(f"'annotations' is {shown(annotations)}, expected a list")
        for index, annotation in enumerate(annotations):
            try:
                boxes.append(_box(annotation))
                labels.append(name_of(annotation.get("label"), "'label'"))
            except Unusable as e:
                raise Unusable(f"annotation {index + 1}: {e}") from None
    except Unusable as e:
        return Annotation(file, image, place=place, problem=str(e))
    return Annotation(file, image, tuple(labels), np.array(boxes, dtype=np.float64).reshape(-1, 4), place=place)


def _box(annotation: Any) -> Box:
    values = annotation.get("coordinates") if isinstance(annotation, dict) else None
    if not isinstance(values, dict):
        raise Unusable(f"{shown(annotation)} has no 'coordinates'")
    x, y, w, h = (number(values.get(key), f"{key!r}") for key in ("x", "y", "width", "height"))
    return with_area((x - w / 2, y - h / 2, x + w / 2, y + h / 2), f"the box with width {w:g} and height {h:g}")
