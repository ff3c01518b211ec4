"""YOLO: a .txt file per image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, LabelFile, Polygons
from dfssd.datasets.label_files import TOLERANCE, LineError, parse_labels
from dfssd.datasets.readers.texts import RESAVE, read_text_of, unreadable

KEYPOINTS = (
    "boxes with keypoints, or polygons; state kpt_shape in the data set YAML if they are keypoints, "
    "else export the labels again as boxes"
)
"""Problem of rows that could be both and look like boxes with keypoints."""

_REACH = 0.6
"""Keypoints are not farther from the middle of their box than this times its sides, a little beyond its border."""

_ROUNDING = 0.003
"""Corners of an oriented box that were rounded to whole pixels are off by this much at most."""

_SHARE = 0.9
"""At least this share of the files of a data set with keypoints fits; some points lie outside of their boxes."""

_ENOUGH = 8
"""So many files do not fit by chance: about three of ten polygons do."""

_JUMP = 1.5
"""The second point of a polygon is not farther from all others than this times the diagonal around the others."""


def read_yolo(file: Path, keypoints: tuple[int, int] | None = None) -> LabelFile | BrokenFile:
    """Read a file that is known to be a YOLO label file, such as one beside an image that a data set YAML lists.

    Args:
        file: The file.
        keypoints: ``kpt_shape`` of the data set YAML: number of keypoints, and values per keypoint. Rows are then
            boxes, with or without keypoints behind them.

    Returns:
        A label file with one annotation. Its boxes are inside the image already (``clip_box``) and need no further
        clipping: boxes that lay inside are those of the file, bit for bit. An empty file means an image without
        defects.
    """
    try:
        text = read_text_of(file)
    except OSError as e:
        return BrokenFile(file, unreadable(e))
    if not text.utf8:
        return broken_labels(file, RESAVE)
    return labels_of(file, text.text.splitlines(), keypoints)


def labels_of(file: Path, lines: Sequence[str], keypoints: tuple[int, int] | None = None) -> LabelFile:
    """The label file with these lines; see :func:`read_yolo`."""
    rows = None if keypoints else _polygon_rows(lines)
    if rows and all(_holds_keypoints(row, 3) for row in rows):
        # Every third number is 0, 1 or 2, the visibility: polygons do not look so.
        return broken_labels(file, KEYPOINTS)
    try:
        labels = parse_labels(lines, keypoints=keypoints)
    except LineError as e:
        return broken_labels(file, str(e), f":{e.line}")
    boxes = np.array([row[1:] for row in labels], dtype=np.float64).reshape(-1, 4)
    ids = tuple(int(row[0]) for row in labels)
    polygons = _polygons(rows) if rows else None
    return LabelFile(file, "yolo", (Annotation(file, None, ids, boxes, normalized=True, polygons=polygons),))


def broken_labels(file: Path, problem: str, place: str = "") -> LabelFile:
    """A label file that cannot be used; it concerns one image."""
    return LabelFile(file, "yolo", (Annotation(file, normalized=True, place=place, problem=problem),))


def settle_keypoints(files: Iterable[LabelFile]) -> list[LabelFile]:
    """Refuse the polygons of a data set whose files together look like boxes with keypoints.

    Boxes with keypoints all have the same number of columns, and in each row the first four numbers are a box in the
    image with the following points in it. A polygon, above all a small one left of the middle, may look so by chance,
    but hardly all of a data set do.

    Args:
        files: All label files of a data set without ``kpt_shape``; those of other formats stay as they are.
    """
    files = list(files)
    found = [a.polygons for file in files for a in file.annotations if a.polygons and a.problem is None]
    fitting = [polygons for polygons in found if polygons.fits]
    if not fitting or len(fitting) < _SHARE * len(found) or len({polygons.columns for polygons in found}) > 1:
        return files
    if len(fitting) < _ENOUGH and not any(polygons.jumps for polygons in fitting):
        return files
    return [
        replace(
            file,
            annotations=tuple(
                Annotation(a.file, normalized=True, problem=KEYPOINTS) if a.polygons else a for a in file.annotations
            ),
        )
        for file in files
    ]


def _polygon_rows(lines: Iterable[str]) -> list[list[float]]:
    """Rows without their ids if they may be polygons or boxes with keypoints."""
    split = [columns for line in lines if (columns := line.split())]
    if any(len(columns) < 7 for columns in split):
        return []
    try:
        return [[float(column) for column in columns[1:]] for columns in split]
    except ValueError:
        return []


def _polygons(rows: Sequence[Sequence[float]]) -> Polygons:
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        return Polygons(0, False, False)
    fits = all(_holds_keypoints(row, 2) for row in rows) and not all(map(_is_drawn, rows))
    return Polygons(widths.pop() + 1, fits, fits and any(map(_jumps, rows)))


def _is_drawn(row: Sequence[float]) -> bool:
    """Whether points are a parallelogram (an oriented box), or end where they begin: certainly a polygon."""
    x1, y1, x2, y2, x3, y3 = row[:6]
    if len(row) == 8:
        return max(abs(x1 + x3 - x2 - row[6]), abs(y1 + y3 - y2 - row[7])) < _ROUNDING
    return len(row) >= 10 and (x1, y1) == (row[-2], row[-1])


def _holds_keypoints(row: Sequence[float], values: int) -> bool:
    """Whether a row without its id is a box and keypoints of 2 or 3 values (the third is 0, 1 or 2) in it."""
    x, y, w, h = row[:4]
    if min(w, h) <= 0 or min(x - w / 2, y - h / 2) < -TOLERANCE or max(x + w / 2, y + h / 2) > 1 + TOLERANCE:
        return False
    rest = row[4:]
    if len(rest) % values or (values == 3 and not {0, 1, 2}.issuperset(rest[2::3])):
        return False
    hidden = [v == 0 for v in rest[2::3]] if values == 3 else [p == (0, 0) for p in zip(rest[0::2], rest[1::2])]
    return all(
        unseen or (abs(px - x) <= _REACH * w and abs(py - y) <= _REACH * h)
        for px, py, unseen in zip(rest[0::values], rest[1::values], hidden)
    )


def _jumps(row: Sequence[float]) -> bool:
    """Whether the second point is far away from all others."""
    points = np.array(row).reshape(-1, 2)
    others = np.delete(points, 1, axis=0)
    distance = np.hypot(*(others - points[1]).T).min()
    return bool(distance > _JUMP * np.hypot(*np.ptp(others, axis=0)))
