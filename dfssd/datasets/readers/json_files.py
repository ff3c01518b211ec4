"""JSON files: which format one has, if it is a label file at all."""

from __future__ import annotations

import codecs
import json
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dfssd.datasets.annotations import BrokenFile, Found, OtherFile
from dfssd.datasets.readers.coco import is_coco, read_coco
from dfssd.datasets.readers.createml import is_createml, read_createml
from dfssd.datasets.readers.json_values import Unusable, shown
from dfssd.datasets.readers.label_studio import is_class_notes, is_label_studio, read_class_notes, read_label_studio
from dfssd.datasets.readers.labelme import is_labelme, read_labelme
from dfssd.datasets.readers.via import is_via, read_via
from dfssd.trust.limits import json_problem

_BOX_KEYS = (
    *("bbox", "bndbox", "bounding_box", "boundingBox", "boundingPoly", "box2d", "boxes"),
    *("polygon", "polygons", "segmentation", "xmin", "x_min"),
)
"""Names that boxes and outlines have in the formats of other tools."""

_SCORE_KEYS = ("score", "scores", "confidence", "conf", "probability")
_SEARCHED = 5000


def read_json(file: Path) -> Found:
    """Read a .json file: labels in a known form, or why it holds none.

    Args:
        file: UTF-8, with or without byte-order mark.
    """
    try:
        data = file.read_bytes()
        if problem := json_problem(data):
            return BrokenFile(file, f"{problem}; raise that if you know the file, or remove it from the data")
        content, twice = _parse(data)
    except OSError as e:
        return BrokenFile(file, f"cannot be read ({e.strerror}); restore it, or remove it from the data")
    except Unusable as e:
        return BrokenFile(file, str(e))
    found = _read(file, content)
    if twice is not None and not isinstance(found, OtherFile):
        return BrokenFile(file, f"has the key {shown(twice)} twice in one object; keep one of them")
    return found


def _parse(data: bytes) -> tuple[Any, str | None]:
    """The content of a JSON text, and a key that occurs twice in one object.

    Raises:
        Unusable: It is not UTF-8 or not JSON.
    """
    text = _decode(data)
    twice: list[str] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known = dict(pairs)
        if len(known) < len(pairs) and not twice:
            keys = [key for key, _ in pairs]
            twice.append(next(key for i, key in enumerate(keys) if key in keys[:i]))
        return known

    try:
        return json.loads(text, object_pairs_hook=keep), twice[0] if twice else None
    except json.JSONDecodeError as e:
        what = "is empty" if not text.strip() else f"is not valid JSON ({e.msg} in line {e.lineno}, column {e.colno})"
    except ValueError:  # Python refuses whole numbers of thousands of digits
        what = "is not valid JSON (a number with too many digits)"
    raise Unusable(f"{what}; export it again, or remove it from the data")


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or json.detect_encoding(data) not in (
        "utf-8",
        "utf-8-sig",
    ):
        raise Unusable("is not UTF-8 (but UTF-16 or UTF-32); save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise Unusable(f"is not UTF-8 (byte 0x{data[e.start]:02x} at {e.start}); save it as UTF-8") from e


def _read(file: Path, content: Any) -> Found:
    for fits, read in _FORMATS:
        if fits(content):
            return read(file, content)
    return _read_unknown(file, content)


_FORMATS: tuple[tuple[Callable[[object], bool], Callable[[Path, Any], Found]], ...] = (
    (is_coco, read_coco),
    (is_labelme, read_labelme),
    (is_label_studio, read_label_studio),
    (is_createml, read_createml),
    (is_via, read_via),
    (is_class_notes, read_class_notes),
)
"""How each format is recognized, and its reader; the first that fits."""


def _read_unknown(file: Path, content: Any) -> Found:
    """Tell labels in a form that is not read from files that are none of our business."""
    box = _find_box(content)
    if box is None:
        return OtherFile(file, "it is JSON without labels")
    if _has_value(box, _SCORE_KEYS):
        return OtherFile(file, "it holds detections of a model, not labels")
    if {"image_id", "category_id"} <= box.keys():
        return BrokenFile(file, "holds annotations of COCO without images and categories; export the whole file")
    sign = _has_value(box, _BOX_KEYS)
    return BrokenFile(
        file,
        f"looks like labels ({shown(sign)}) in a form that is not read; convert it to COCO, remove it from the data, "
        "or say with labels= what counts",
    )


def _has_value(value: dict[str, Any], keys: Iterable[str]) -> str:
    """The first of ``keys`` that holds numbers, points or an object; empty if there is none."""
    for key in keys:
        if isinstance(value.get(key), (int, float, list, dict)) and not isinstance(value[key], bool):
            return key
    return ""


def _find_box(content: Any) -> dict[str, Any] | None:
    """The first object that looks like a box, among the first few thousand values."""
    waiting = deque([content])
    for _ in range(_SEARCHED):
        if not waiting:
            break
        value = waiting.popleft()
        if isinstance(value, dict):
            if _has_value(value, _BOX_KEYS):
                return value
            value = list(value.values())
        if isinstance(value, list):
            waiting.extend(part for part in value[:_SEARCHED] if isinstance(part, (dict, list)))
    return None
