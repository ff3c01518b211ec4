"""What a detector gets wrong at its thresholds: each detection and each true box by the kind of its error.

The kinds are those of TIDE (Bolya et al., ECCV 2020, arXiv:2008.08115), assigned in one pass: detections of an image,
by falling score, take the free true box of their class that they overlap most, if by at least :data:`MATCH`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from dfssd.datasets.overlap import box_iou
from dfssd.evaluation.detections import Detections, Places
from dfssd.evaluation.operating import share
from dfssd.results.sections import Errors, SizeRecall

MATCH = 0.5
"""Overlap (intersection over union) from which a detection has found a true box."""
NEAR = 0.1
"""Overlap below which a detection has nothing to do with a true box."""
SIDES = (8.0, 16.0, 32.0, 64.0)
"""Limits between the classes of size: square roots of areas [px of the network's input]."""

CORRECT, PLACE, CLASS, BOTH, DUPLICATE, BACKGROUND = range(6)
"""Kinds of detections."""


@dataclass(frozen=True)
class Matches:
    """The detections at or above their thresholds, against the true boxes.

    Attributes:
        rows: (K,) their places in the detections.
        kind: (K,) one of :data:`CORRECT`, ..., :data:`BACKGROUND`.
        target: (K,) the true box that they overlap most, -1 if by less than :data:`NEAR`.
        found: (B,) bool, whether the true box is matched.
        touched: (B,) bool, whether it is not, but a detection of the wrong class or place lies on it.
    """

    rows: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    found: np.ndarray
    touched: np.ndarray


def match(detections: Detections, thresholds: np.ndarray) -> Matches:
    """Match the detections that reach their thresholds with the true boxes.

    Args:
        detections: With the places of their boxes.
        thresholds: (C,) score from which a detection of each class counts.

    Raises:
        ValueError: The places are not known.
    """
    places = _places(detections)
    classes = detections.pred_cls.astype(int)
    rows = np.flatnonzero(detections.conf >= thresholds[classes])
    rows = rows[np.argsort(-detections.conf[rows], kind="stable")]
    kind = np.full(len(rows), BACKGROUND)
    target = np.full(len(rows), -1)
    found = np.zeros(len(detections.target_cls), bool)
    touched = found.copy()
    image_of, target_cls = detections.image[rows], detections.target_cls.astype(int)
    for image in np.unique(image_of):
        own, true = np.flatnonzero(image_of == image), np.flatnonzero(detections.target_image == image)
        if not len(true):
            continue
        shared = box_iou(_centered(places.box[rows[own]]), _centered(places.target_box[true]))
        for k, iou in zip(own, shared, strict=True):
            same = target_cls[true] == classes[rows[k]]
            free = np.where(same & ~found[true], iou, 0.0)
            if free.max() >= MATCH:
                kind[k], target[k] = CORRECT, true[free.argmax()]
                found[target[k]] = True
                continue
            nearest = int(iou.argmax())
            if iou[nearest] < NEAR:
                continue
            kind[k], target[k] = _wrong(iou, same), true[nearest]
            touched[target[k]] = kind[k] != DUPLICATE
    return Matches(rows, kind, target, found, touched & ~found)


def _wrong(iou: np.ndarray, same: np.ndarray) -> int:
    """The kind of a detection that found no free box of its class, by its overlaps with all boxes of its image."""
    if (iou[same] >= MATCH).any():
        return DUPLICATE
    if (iou[~same] >= MATCH).any():
        return CLASS
    return PLACE if (iou[same] >= NEAR).any() else BOTH


def _centered(boxes: np.ndarray) -> np.ndarray:
    """(K, 4) x1, y1, x2, y2 -> x, y, w, h, as the overlap takes them; it does not depend on the scale of an axis."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def _places(detections: Detections) -> Places:
    if detections.places is None:
        raise ValueError("the places of the boxes are not recorded")
    return detections.places


def errors(detections: Detections, matches: Matches, n_classes: int) -> Errors:
    """How often each kind of error occurs; ``confusion`` has a row for each true class, as :func:`confusion`."""
    counts = np.bincount(matches.kind, minlength=BACKGROUND + 1)
    return Errors(
        correct=int(counts[CORRECT]),
        wrong_place=int(counts[PLACE]),
        wrong_class=int(counts[CLASS]),
        wrong_both=int(counts[BOTH]),
        duplicates=int(counts[DUPLICATE]),
        background=int(counts[BACKGROUND]),
        missed=int((~matches.found & ~matches.touched).sum()),
        confusion=tuple(tuple(int(x) for x in row) for row in confusion(detections, matches, n_classes)),
    )


def confusion(detections: Detections, matches: Matches, n_classes: int) -> np.ndarray:
    """(C + 1, C + 1) counts: true class, last row: background; predicted class, last column: missed.

    A detection of the wrong class at the right place counts in the column of its class, unless its box is found by
    another one; detections that find nothing are in the last row, boxes that nothing finds in the last column.
    """
    table = np.zeros((n_classes + 1, n_classes + 1), int)
    predicted = detections.pred_cls[matches.rows].astype(int)
    true = detections.target_cls.astype(int)
    taken = matches.found.copy()
    for kind, target, class_id in zip(matches.kind, matches.target, predicted, strict=True):
        if kind == CORRECT:
            table[true[target], class_id] += 1
        elif kind == CLASS and not taken[target]:
            table[true[target], class_id] += 1
            taken[target] = True
        else:
            table[n_classes, class_id] += 1
    for class_id in true[~taken]:
        table[class_id, n_classes] += 1
    return table


def recall_by_size(detections: Detections, matches: Matches, imgsz: int) -> tuple[SizeRecall, ...]:
    """Share of the true boxes that are found, by the square root of their area in the network's input.

    Args:
        detections: With the places of their boxes.
        matches: What is found of them.
        imgsz: Longer side of the network's input [px].

    Returns:
        A row for each class of size that has true boxes, small ones first.
    """
    places = _places(detections)
    side = places.sides(imgsz)
    limits = [0.0, *SIDES, np.inf]
    rows = []
    for low, high in itertools.pairwise(limits):
        own = (side >= low) & (side < high)
        if count := int(own.sum()):
            found = int((matches.found & own).sum())
            recall = share(found, count)
            rows.append(
                SizeRecall(
                    from_px=low, to_px=None if np.isinf(high) else high, defects=count, found=found, recall=recall
                )
            )
    return tuple(rows)
