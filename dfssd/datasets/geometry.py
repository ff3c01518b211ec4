"""Boxes of an annotation as rows of YOLO, held against the size of the image as training reads it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dfssd.datasets.annotations import Annotation
from dfssd.datasets.class_names import ids_of
from dfssd.datasets.label_files import TOLERANCE, clip_box

SAME_PLACE = 1.5
"""[px] Boxes of two files whose corners differ by no more than this are one box: formats round differently."""


def rows(annotation: Annotation, size: tuple[int, int], names: Sequence[str], *, resize: bool) -> np.ndarray:
    """The boxes of an annotation in YOLO's form.

    Args:
        annotation: What a file says about the image.
        size: (width, height) [px] of the image as training reads it.
        names: Class names in id order.
        resize: Scale boxes that were drawn on an image of another size.

    Returns:
        (n, 5) float32 rows [class id, x, y, w, h], xywh center format, inside 0-1; repeated boxes once.

    Raises:
        ValueError: A class is unknown, the stated size is another one, or a box does not lie inside the image.
    """
    if annotation.problem:
        raise ValueError(annotation.problem)
    ids = ids_of(annotation.labels, names)
    if not ids:
        return np.zeros((0, 5), dtype=np.float32)
    if annotation.normalized:
        unique = dict.fromkeys(
            (i, *box) for i, box in zip(ids, annotation.boxes.tolist(), strict=True)
        )  # clipped already
        return np.array(list(unique), dtype=np.float32).reshape(-1, 5)
    frame = annotation.size or size
    if frame != size and not resize:
        raise ValueError(_other_size(frame, size))
    return _relative(annotation.boxes, ids, frame)


def _other_size(stated: tuple[int, int], size: tuple[int, int]) -> str:
    words = f"states an image of {stated[0]}x{stated[1]} px, but the image has {size[0]}x{size[1]} px"
    if stated == size[::-1]:
        return (
            f"{words}: one of them is turned (EXIF orientation), and the boxes with it; annotate the image as training "
            "reads it, or remove the orientation from the file"
        )
    return (
        f"{words}; annotate the images as they are, or pass resize_labels=true if only their size has changed since "
        "they were annotated"
    )


def _relative(corners: np.ndarray, ids: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    width, height = size
    if corners.max() <= 1:
        raise ValueError("all coordinates are between 0 and 1: relative ones, where pixels belong; export it again")
    found = []
    for class_id, (x1, y1, x2, y2) in zip(ids, corners.tolist(), strict=True):
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        try:
            if max(-x1 / width, -y1 / height, x2 / width - 1, y2 / height - 1) > TOLERANCE:
                raise ValueError("beyond rounding")
            found.append([class_id, *clip_box(*box)])
        except ValueError as e:
            shown = f"{x1:g} {y1:g} {x2:g} {y2:g}"
            if not np.isfinite(box).all():
                wrong = "contains NaN or infinity"
            else:
                wrong = "has no area" if x2 <= x1 or y2 <= y1 else "reaches outside the image"
            raise ValueError(f"box x1 y1 x2 y2 = {shown} {wrong} ({width}x{height} px); correct or remove it") from e
    return np.unique(np.array(found, dtype=np.float32).reshape(-1, 5), axis=0)


def same_boxes(a: np.ndarray, b: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether two sets of rows hold the same boxes of the same classes, up to rounding."""
    return len(a) == len(b) and len(new_boxes(a, b, size)) == 0 and len(new_boxes(b, a, size)) == 0


def joined(parts: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray | None:
    """The boxes of several annotators of one image, each box once; None if they contradict each other.

    They do if two boxes that are not the same overlap by more than half (IoU 0.5): one file may be an older version of
    the other, or two people see different outlines or classes.
    """
    found = parts[0]
    for part in parts[1:]:
        new = new_boxes(part, found, size)
        if len(new) and len(found) and _overlaps(new, found).max() > 0.5:
            return None
        found = np.concatenate([found, new])
    return found


def new_boxes(rows: np.ndarray, known: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The rows that are not among ``known``, up to :data:`SAME_PLACE` in an image of ``size`` (width, height) [px]."""
    if not len(rows) or not len(known):
        return rows
    known_already = (is_same_place(rows, known, size) & (rows[:, None, 0] == known[None, :, 0])).any(1)
    new: np.ndarray = rows[~known_already]
    return new


def is_same_place(a: np.ndarray, b: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, m) whether the corners of each pair of rows differ by :data:`SAME_PLACE` at most, whatever their classes."""
    scale = np.array([*size, *size], dtype=np.float64)
    distance = np.abs(_corners(a)[:, None] * scale - _corners(b)[None] * scale).max(-1)
    return np.asarray(distance <= SAME_PLACE)


def _corners(rows: np.ndarray) -> np.ndarray:
    boxes = rows[:, 1:].astype(np.float64)
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each pair of rows, (n, m) in [0, 1]."""
    first, second = _corners(a)[:, None], _corners(b)[None]
    sides = np.clip(np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]), 0, None)
    shared = sides.prod(-1)
    area = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - shared
    return np.asarray(shared / np.maximum(area, 1e-12))
