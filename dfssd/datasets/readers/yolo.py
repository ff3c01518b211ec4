"""YOLO: a .txt file per image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, LabelFile
from dfssd.datasets.label_files import TOLERANCE, LineError, parse_labels
from dfssd.datasets.readers.texts import RESAVE, read_text_of, unreadable

KEYPOINTS = (
    "boxes with keypoints, or polygons; state kpt_shape in the data set YAML if they are keypoints, "
    "else export the labels again as boxes"
)
"""Problem of rows that could be both and look like boxes with keypoints."""

_REACH = 0.6
"""Keypoints are not farther from the middle of their box than this times its sides, a little beyond its border."""

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
        return LabelFile(file, "yolo", (Annotation(file, normalized=True, problem=RESAVE),))
    return labels_of(file, text.text.splitlines(), keypoints)


def labels_of(file: Path, lines: Sequence[str], keypoints: tuple[int, int] | None = None) -> LabelFile:
    """The label file with these lines; see :func:`read_yolo`."""
    doubt = "" if keypoints else _keypoint_doubt(lines)
    try:
        rows = parse_labels(lines, keypoints=keypoints)
    except LineError as e:
        place, problem = ("", KEYPOINTS) if doubt == "likely" else (f":{e.line}", str(e))
        return LabelFile(file, "yolo", (Annotation(file, normalized=True, place=place, problem=problem),))
    if doubt == "likely":
        return LabelFile(file, "yolo", (Annotation(file, normalized=True, problem=KEYPOINTS),))
    boxes = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 4)
    ids = tuple(int(row[0]) for row in rows)
    annotation = Annotation(file, labels=ids, boxes=boxes, normalized=True, ambiguous=doubt == "possible")
    return LabelFile(file, "yolo", (annotation,))


def settle_keypoints(files: Iterable[LabelFile]) -> list[LabelFile]:
    """Refuse polygons that could be boxes with keypoints if other files of the data set surely look like them.

    All rows of a data set have the same form, so one file that gives it away speaks for the others.
    """
    files = list(files)
    if not any(annotation.problem == KEYPOINTS for file in files for annotation in file.annotations):
        return files
    return [
        replace(
            file,
            annotations=tuple(
                Annotation(a.file, normalized=True, problem=KEYPOINTS) if a.ambiguous else a for a in file.annotations
            ),
        )
        for file in files
    ]


def _keypoint_doubt(lines: Iterable[str]) -> str:
    """Whether rows of polygons could be boxes with keypoints: "" (no), "possible", or "likely".

    Such rows have the same number of columns, and in each the first four numbers are a box in the image with the
    following points in it. Polygons, above all small ones left of the middle, may look so by chance; but read as a
    polygon, boxes with keypoints jump: their second point is a width and a height.
    """
    try:
        rows = [[float(column) for column in line.split()[1:]] for line in lines if line.strip()]
    except ValueError:
        return ""
    width = len(rows[0]) if rows else 0
    if width < 6 or any(len(row) != width for row in rows):
        return ""
    if all(_holds_keypoints(row, 3) for row in rows):
        return "likely"
    if not all(_holds_keypoints(row, 2) for row in rows):
        return ""
    jumps = [_jumps(row) for row in rows]
    # A triangle may well be a spike, other polygons hardly.
    return "likely" if (all(jumps) if width == 6 else any(jumps)) else "possible"


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
