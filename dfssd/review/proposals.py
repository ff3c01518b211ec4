"""The boxes that are offered to a reviewer: those of teacher and student, each object once, and where they disagree."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from dfssd.datasets.overlap import box_iou, partners
from dfssd.pseudo_labels.records import PseudoImage

SAME_OBJECT = 0.5
"""Minimum IoU of two boxes of one class that show the same object."""

TEACHER, STUDENT, BOTH = "teacher", "student", "both"


@dataclass(frozen=True)
class Proposals:
    """The boxes of one image, by falling score.

    Attributes:
        classes: Class ids, (n,) int64.
        scores: The higher score of the two networks, (n,) in [0, 1].
        boxes_xywhn: The box of that network, (n, 4), xywh center format, 0-1.
        teacher: Score by the teacher, (n,); 0 where it has not found the box.
        student: Score by the student, (n,); 0 where it has not found the box, or was not asked.
    """

    classes: np.ndarray
    scores: np.ndarray
    boxes_xywhn: np.ndarray
    teacher: np.ndarray
    student: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def above(self, score: float) -> Proposals:
        """The boxes with at least that score."""
        kept = self.scores >= score
        return Proposals(*(getattr(self, field.name)[kept] for field in fields(self)))

    @property
    def found_by(self) -> list[str]:
        """Which network has found each box: :data:`TEACHER`, :data:`STUDENT`, or :data:`BOTH`."""
        by = zip(self.teacher, self.student, strict=True)
        return [BOTH if t > 0 and s > 0 else TEACHER if t > 0 else STUDENT for t, s in by]


def proposals(teacher: PseudoImage, student: PseudoImage | None) -> Proposals:
    """The boxes of both networks in one image; boxes of one class that overlap by half count as one."""
    n = len(teacher.classes)
    classes, boxes = [teacher.classes], [teacher.boxes_xywhn.astype(np.float64)]
    t, s = teacher.scores.astype(np.float64), np.zeros(n)
    if student is not None:
        partner = _partners(teacher, student)
        new = partner < 0
        s = np.concatenate([s, student.scores[new]])
        t = np.concatenate([t, np.zeros(int(new.sum()))])
        classes.append(student.classes[new])
        boxes.append(student.boxes_xywhn[new].astype(np.float64))
        known = np.flatnonzero(~new)
        s[partner[known]] = student.scores[known]
        better = known[student.scores[known] > t[partner[known]]]
        boxes[0][partner[better]] = student.boxes_xywhn[better]
    scores = np.maximum(t, s)
    order = np.argsort(-scores, kind="stable")
    every = np.concatenate(boxes)
    return Proposals(np.concatenate(classes)[order], scores[order], every[order], t[order], s[order])


def disagreements(found: Proposals, lowest: float) -> np.ndarray:
    """How much the networks disagree about each box, (n,) in [0, 1].

    The difference of their scores; where only one has found the box, how far its score is above ``lowest``, the score
    from which boxes are kept, on a scale that ends with 1: the other may have missed it by a hair.
    """
    alone = (found.teacher == 0) | (found.student == 0)
    above: np.ndarray = np.clip((found.scores - lowest) / max(1 - lowest, 1e-9), 0, 1)
    return np.where(alone, above, np.abs(found.teacher - found.student))


def closeness(found: Proposals, thresholds: np.ndarray, lowest: float) -> np.ndarray:
    """How close the score of each box is to the threshold of its class, (n,) in [0, 1].

    1 at the threshold, falling linearly to 0 at ``lowest`` on one side and at 1 on the other.
    """
    at = thresholds[found.classes]
    room = np.where(found.scores < at, at - lowest, 1 - at)
    near: np.ndarray = np.clip(1 - np.abs(found.scores - at) / np.maximum(room, 1e-9), 0, 1)
    return near


def _partners(teacher: PseudoImage, student: PseudoImage) -> np.ndarray:
    """For each box of the student the index of that of the teacher that shows the same object, else -1."""
    overlap = box_iou(student.boxes_xywhn.astype(np.float64), teacher.boxes_xywhn.astype(np.float64))
    overlap[student.classes[:, None] != teacher.classes[None]] = -1
    return partners(overlap, student.scores, SAME_OBJECT)
