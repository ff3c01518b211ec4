"""Reading and writing of YOLO label files; error messages name file and line.

``supervision`` reads these files too, but it accepts a sixth column, ids beyond the list of names and coordinates
outside the image, and its messages name no file. A wrong label that is silently trained on costs more than this module.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dfssd.errors import UserError

TOLERANCE = 0.01
"""Coordinates may leave 0-1 by this much (rounding of annotation tools), as in Ultralytics; they are clipped."""


def read_label_file(path: Path, n_classes: int | None) -> np.ndarray:
    """Boxes of a YOLO label file.

    Rows are ``class x y w h`` or, with an odd number of at least 7 columns, ``class x1 y1 x2 y2 x3 y3 ...``: a polygon,
    which is replaced by its bounding box. Repeated rows count once, as in Ultralytics.

    Args:
        path: Label file, UTF-8 with or without byte-order mark. An empty file means a defect-free image.
        n_classes: Number of classes; None if it is not known yet, then any id from 0 on is accepted.

    Returns:
        (n, 5) float32 rows [class id, x, y, w, h], xywh center format, inside 0-1.

    Raises:
        UserError: The file cannot be read as text, or a row is wrong; the message names the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as e:
        raise UserError(f"{path}: cannot be read as a text file ({e.__class__.__name__}); write it again") from e
    rows: list[list[float]] = []
    widths = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            columns = line.split()
            row = _parse_row(columns, n_classes)
            widths.add(len(columns) == 5)
            if len(widths) > 1:
                raise ValueError("boxes (5 columns) and polygons in one file; Ultralytics would drop it, use one kind")
        except ValueError as e:
            raise UserError(f"{path}:{number}: {e}") from e
        if row not in rows:
            rows.append(row)
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def _parse_row(columns: list[str], n_classes: int | None) -> list[float]:
    n = len(columns)
    if n == 6:
        raise ValueError("6 columns, expected 5 (class x y w h); remove the confidence column")
    if n < 5 or n % 2 == 0:
        raise ValueError(f"{n} columns, expected 5 (class x y w h) or an odd number of at least 7 (polygon)")
    try:
        values = [float(column) for column in columns]
    except ValueError:
        raise ValueError("not all columns are numbers; expected class x y w h") from None
    if not all(math.isfinite(value) for value in values):
        raise ValueError("contains NaN or infinity; expected finite numbers")
    class_id, coordinates = values[0], values[1:]
    if class_id != int(class_id) or class_id < 0:
        raise ValueError(f"class id {columns[0]} is not a whole number from 0 on")
    if n_classes is not None and class_id >= n_classes:
        raise ValueError(
            f"class id {int(class_id)} is out of range, the data set has {n_classes} classes (0 to {n_classes - 1}); "
            "correct the id or the list of names"
        )
    if n == 5:
        return [class_id, *clip_box(*coordinates)]
    if min(coordinates) < -TOLERANCE or max(coordinates) > 1 + TOLERANCE:
        raise ValueError("polygon coordinates outside 0-1; divide pixels by the image width and height")
    xs, ys = coordinates[0::2], coordinates[1::2]
    x1, x2, y1, y2 = min(xs), max(xs), min(ys), max(ys)
    return [class_id, *clip_box((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)]


def clip_box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
    """A box in xywh center format (0-1), clipped to the image.

    Raises:
        ValueError: A value is not in 0-1 (1 % tolerance), or the box has no area.
    """
    box = (x, y, w, h)
    if not all(math.isfinite(value) for value in box):
        raise ValueError("contains NaN or infinity; expected finite numbers")
    if min(box) < -TOLERANCE or max(box) > 1 + TOLERANCE:
        shown = " ".join(f"{value:g}" for value in box)
        raise ValueError(f"coordinates outside 0-1 (x y w h = {shown}); divide pixels by the image width and height")
    x1, x2 = max(x - w / 2, 0.0), min(x + w / 2, 1.0)
    y1, y2 = max(y - h / 2, 0.0), min(y + h / 2, 1.0)
    if w <= 0 or h <= 0 or x2 <= x1 or y2 <= y1:
        raise ValueError(f"box without area (w h = {w:g} {h:g}); remove the line or correct the size")
    if min(x - w / 2, y - h / 2) >= 0 and max(x + w / 2, y + h / 2) <= 1:
        return box  # unchanged, so that a box inside the image stays bit-identical
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def format_labels(boxes: np.ndarray) -> str:
    """(n, 5) rows [class id, x, y, w, h] (0-1) as the text of a YOLO label file, exact to the last bit of a float32."""
    rows = np.asarray(boxes, dtype=np.float32)
    return "".join(f"{int(row[0])} {' '.join(map(str, row[1:]))}\n" for row in rows)
