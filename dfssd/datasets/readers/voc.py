"""Pascal VOC: an .xml file per image, as of LabelImg, Roboflow or CVAT.

``supervision`` reads these files too, but it takes names with the white space around them, makes a box without area one
pixel wide, passes over objects in other places, and does not tell the size that a file states.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from dfssd.datasets.annotations import Annotation, LabelFile, OtherFile
from dfssd.datasets.readers.json_values import name_of, shown

_KNOWN = {"folder", "filename", "path", "source", "owner", "size", "segmented", "object"}
"""Elements of which a Pascal VOC file has at least one."""


def read_voc(file: Path, root: Element) -> LabelFile | OtherFile:
    """The boxes of one image.

    Corners are 1-based pixels, the last ones included, as the VOC development kit writes them: ``xmin`` and ``ymin``
    move by one, ``xmax`` and ``ymax`` already are the far edge. Difficult, truncated and occluded objects count, and
    parts of an object do not. ``<filename>`` and ``<path>`` are not used, since tools leave them as they are when
    files are renamed: the image is the one called like the .xml file.

    Args:
        file: The file, for messages.
        root: Its ``<annotation>``.

    Returns:
        A label file with one annotation, or another file if nothing in it is of Pascal VOC.
    """
    if _KNOWN.isdisjoint(child.tag for child in root):
        return OtherFile(file, "XML without anything of Pascal VOC")
    try:
        _check_nesting(root)
        found = [_read_object(element, number) for number, element in enumerate(root.findall("object"), 1)]
    except ValueError as e:
        return broken_voc(file, str(e))
    boxes = np.array([box for _, box in found], dtype=np.float64).reshape(-1, 4)
    annotation = Annotation(file, labels=tuple(name for name, _ in found), boxes=boxes, size=_size(root))
    return LabelFile(file, "voc", (annotation,))


def broken_voc(file: Path, problem: str) -> LabelFile:
    """A file whose annotation cannot be used."""
    return LabelFile(file, "voc", (Annotation(file, problem=problem),))


def _check_nesting(root: Element) -> None:
    """Raise a ``ValueError`` if there are objects or boxes where nobody would look for them.

    Such a file of another format would pass as one without defects.
    """
    tags = Counter(element.tag.lower() for element in root.iter())
    objects = root.findall("object")
    own = sum(1 for element in objects for _ in element.iter("bndbox"))
    if tags["object"] != len(objects) or tags["bndbox"] != own:
        raise ValueError("has objects or boxes in places that Pascal VOC does not have; export it as Pascal VOC")


def _read_object(element: Element, number: int) -> tuple[str, list[float]]:
    """Name and corners x1, y1, x2, y2 [px] of an ``<object>``."""
    name = name_of(element.findtext("name") or "", f"the name of object {number}")
    what = f"object {number} ({shown(name)})"
    boxes = element.findall("bndbox")
    if not boxes and element.find("robndbox") is not None:
        raise ValueError(f"{what} has a rotated box (robndbox) and no bndbox; export boxes that are not rotated")
    if not boxes and element.find("polygon") is not None:
        raise ValueError(f"{what} has a polygon and no bndbox; export it with boxes")
    if len(boxes) != 1:
        raise ValueError(f"{what} has {len(boxes) or 'no'} bndbox, expected one; correct it in the annotation tool")
    xmin, ymin, xmax, ymax = (_coordinate(boxes[0], tag, what) for tag in ("xmin", "ymin", "xmax", "ymax"))
    # A box names two corners; a pair the other way round is the same rectangle.
    xmin, xmax = min(xmin, xmax), max(xmin, xmax)
    ymin, ymax = min(ymin, ymax), max(ymin, ymax)
    if xmin == xmax or ymin == ymax:
        corners = f"{xmin:g} {ymin:g} {xmax:g} {ymax:g}"
        raise ValueError(f"{what} is a box without area (xmin ymin xmax ymax = {corners}); remove or correct it")
    return name, [xmin - 1, ymin - 1, xmax, ymax]


def _coordinate(box: Element, tag: str, what: str) -> float:
    text = (box.findtext(tag) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what}: {tag} {shown(text)} is not a number; correct it")
    return value


def _size(root: Element) -> tuple[int, int] | None:
    """(width, height) [px] as stated; None if one of them is missing, 0 or no whole number."""
    try:
        width, height = (float(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        return None
    if not (math.isfinite(width) and math.isfinite(height)) or width < 1 or height < 1:
        return None
    return (int(width), int(height)) if width == int(width) and height == int(height) else None
