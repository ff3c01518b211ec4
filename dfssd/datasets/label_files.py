"""Rows of YOLO label files, exact to the last bit; error messages name file and line.

``supervision`` reads these files too, but it accepts a sixth column, ids beyond the list of names and coordinates
outside the image, and its messages name no file. A wrong label that is silently trained on costs more than this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dfssd.errors import UserError
from dfssd.wording import counted

TOLERANCE = 0.01
"""Coordinates may leave 0-1 by this much (rounding of annotation tools), as in Ultralytics; they are clipped."""

Row = tuple[float, float, float, float, float]
"""Class id, x, y, w, h."""


class LineError(ValueError):
    """A row that is no label.

    Attributes:
        line: Its number, from 1.
    """

    def __init__(self, line: int, reason: str):
        super().__init__(reason)
        self.line = line


def read_label_file(path: Path, n_classes: int | None) -> np.ndarray:
    """Boxes of a YOLO label file; for the rows see :func:`parse_labels`.

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
    try:
        rows = parse_labels(lines, n_classes)
    except LineError as e:
        raise UserError(f"{path}:{e.line}: {e}") from e
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def parse_labels(
    lines: Iterable[str], n_classes: int | None = None, keypoints: tuple[int, int] | None = None
) -> list[Row]:
    """Boxes of the lines of a YOLO label file.

    Rows are ``class x y w h`` or, with an odd number of at least 7 columns, ``class x1 y1 x2 y2 x3 y3 ...``: a polygon,
    or an oriented box, which is replaced by its bounding box. Repeated rows count once, as in Ultralytics.

    Args:
        lines: The lines, blank ones among them.
        n_classes: Number of classes; None: any id from 0 on is accepted.
        keypoints: ``kpt_shape`` of the data set, if it has one: number of keypoints, and values per keypoint. Rows are
            then boxes, with or without keypoints behind them.

    Returns:
        One row per box, in the order of the lines; xywh center format, inside 0-1 (:func:`clip_box`).

    Raises:
        LineError: A line is wrong.
    """
    rows: dict[Row, None] = {}
    plain: bool | None = None
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if not columns:
            continue
        try:
            row = _parse_row(columns, n_classes, keypoints)
            plain = len(columns) == 5 if plain is None else plain
            if plain != (len(columns) == 5):
                kind = "boxes with keypoints" if keypoints else "polygons"
                raise ValueError(f"boxes (5 columns) and {kind} in one file; Ultralytics would drop it, use one kind")
        except ValueError as e:
            raise LineError(number, str(e)) from e
        rows[row] = None
    return list(rows)


def _parse_row(columns: Sequence[str], n_classes: int | None, keypoints: tuple[int, int] | None) -> Row:
    if foreign := _foreign_format(columns):
        raise ValueError(foreign)
    try:
        values = [float(column) for column in columns]
    except ValueError:
        raise ValueError("not all columns are numbers; expected class x y w h") from None
    _check_width(values, keypoints)
    if not all(math.isfinite(value) for value in values):
        raise ValueError("contains NaN or infinity; expected finite numbers")
    class_id, coordinates = values[0], values[1:]
    if class_id != int(class_id) or class_id < 0:
        raise ValueError(f"class id {columns[0]} is not a whole number from 0 on")
    if n_classes is not None and class_id >= n_classes:
        raise ValueError(
            f"class id {int(class_id)} is out of range, the data set has {counted(n_classes, 'class')} (0 to "
            f"{n_classes - 1}); correct the id or the list of names"
        )
    if len(columns) == 5 or keypoints is not None:
        x, y, w, h = coordinates[:4]
        return class_id, *clip_box(x, y, w, h)
    if min(coordinates) < -TOLERANCE or max(coordinates) > 1 + TOLERANCE:
        raise ValueError("polygon coordinates outside 0-1; divide pixels by the image width and height")
    xs, ys = coordinates[0::2], coordinates[1::2]
    x1, x2, y1, y2 = min(xs), max(xs), min(ys), max(ys)
    return class_id, *clip_box((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def _check_width(values: Sequence[float], keypoints: tuple[int, int] | None) -> None:
    """Raise a ``ValueError`` if a row is by its number of columns neither a box nor what else the file may hold."""
    n = len(values)
    if keypoints is not None:
        points, each = keypoints
        if n not in {5, 5 + points * each}:
            raise ValueError(
                f"{counted(n, 'column')}, expected {5 + points * each} (class x y w h and "
                f"{counted(points, 'keypoint')} of {counted(each, 'value')}, as kpt_shape says)"
            )
    elif n == 6 and not 0 <= values[5] <= 1:
        raise ValueError("6 columns, expected 5 (class x y w h); the last may be an angle, export boxes without one")
    elif n == 6:
        raise ValueError("6 columns, expected 5 (class x y w h); remove the confidence column")
    elif n > 6 and n % 2 == 0 and (n - 5) % 3 == 0:
        raise ValueError(
            f"{counted(n, 'column')}, expected 5 (class x y w h) or an odd number of at least 7 (polygon); if these "
            f"are boxes with {counted((n - 5) // 3, 'keypoint')}, state kpt_shape: [{(n - 5) // 3}, 3] in the data "
            "set YAML"
        )
    elif n < 5 or n % 2 == 0:
        raise ValueError(f"{counted(n, 'column')}, expected 5 (class x y w h) or an odd number of at least 7 (polygon)")


def _foreign_format(columns: Sequence[str]) -> str:
    """What a row of another format is, and what to do with it; empty if it may be one of YOLO."""
    if any("," in column for column in columns):
        return "commas in the row; write points as decimal marks, and blanks between the columns (class x y w h)"
    if columns[0].lower().startswith(("imagesource:", "gsd:")):
        return "header of DOTA (8 pixel coordinates, class, difficulty); convert the labels to YOLO or COCO"
    numeric = [is_number(column) for column in columns]
    if len(columns) in {9, 10} and all(numeric[:8]) and not numeric[8]:
        return "row of DOTA (8 pixel coordinates, class, difficulty); convert the labels to YOLO or COCO"
    if len(columns) in {15, 16} and all(numeric[1:]) and not numeric[0]:
        return "row of KITTI (class, truncation, ..., 3D box); convert the labels to YOLO or COCO"
    return ""


def is_number(column: str) -> bool:
    """Whether a column is a number, finite or not."""
    try:
        float(column)
    except ValueError:
        return False
    return True


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
