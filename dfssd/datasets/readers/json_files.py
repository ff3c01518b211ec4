"""JSON files: which format one has, if it is a label file at all."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from dfssd.datasets.annotations import BrokenFile, ClassFile, Found, LabelFile, OtherFile
from dfssd.datasets.readers.coco import is_coco, read_coco
from dfssd.datasets.readers.json_values import Unusable, shown


def read_json(file: Path) -> Found:
    """Read a .json file: labels in a known form, or why it holds none.

    Args:
        file: UTF-8, with or without byte-order mark.
    """
    try:
        content, twice = _parse(file.read_bytes())
    except OSError as e:
        return BrokenFile(file, f"cannot be read ({e.strerror}); restore it, or remove it from the data")
    except Unusable as e:
        return BrokenFile(file, str(e))
    found = _read(file, content)
    if twice is not None and isinstance(found, (LabelFile, ClassFile)):
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
    except RecursionError:
        what = "is not valid JSON (nested too deeply)"
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
    if is_coco(content):
        return read_coco(file, content)
    return OtherFile(file, "it is JSON without labels")
