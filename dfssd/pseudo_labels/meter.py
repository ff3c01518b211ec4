"""The health of pseudo-labels per epoch: their number, classes, scores, and agreement with the student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dfssd.pseudo_labels.quality import count_matches
from dfssd.pseudo_labels.records import BatchLabels

TRUE_IOU = 0.5
"""Minimum IoU with a true box at which an accepted box counts as correct."""


class HealthMeter:
    """Counts over the unlabeled images of an epoch.

    The numbers of :meth:`summary`, always the same keys; NaN where there is nothing to divide by:

    * ``accepted``: boxes per unlabeled image,
    * ``ignored``: ignored areas per unlabeled image: doubtful boxes, and images without an accepted box, each as one
      area or, in a mosaic, as the tiles that cover it,
    * ``score``: mean score of the accepted boxes, in [0, 1],
    * ``agreement``: of the anchors at which the teacher is confident (highest score at least 0.25), the share with the
      same best class of the student, in [0, 1],
    * ``precision``, ``recall``: of the accepted boxes at IoU 0.5, where true boxes are known (benchmarks), in [0, 1],
    * ``class/<name>``: accepted boxes of a class per unlabeled image.
    """

    SURE = 0.25
    """Minimum teacher score of an anchor that counts for the agreement."""

    def __init__(self, names: Sequence[str]):
        """Start with zero counts for the classes ``names``."""
        self.names = list(names)
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self.images = self.ignored = self.matched = self.true = self.judged = 0
        self.accepted = np.zeros(len(self.names), dtype=np.int64)
        self.score = 0.0
        self.agreed: int | Tensor = 0
        self.sure: int | Tensor = 0

    def update(
        self,
        *,
        images: int,
        classes: np.ndarray,
        scores: np.ndarray,
        ignored: int,
        agreed: int | Tensor,
        sure: int | Tensor,
    ) -> None:
        """Add the counts of one batch; those on a device are added up there and read once per epoch.

        Args:
            images: Unlabeled images in it.
            classes: (M,) classes of the accepted boxes.
            scores: (M,) their scores.
            ignored: Ignored boxes.
            agreed: Confident anchors of the teacher at which the student has the same best class; a number, or a
                scalar int64 tensor.
            sure: Confident anchors of the teacher, alike.
        """
        self.images += images
        self.accepted += np.bincount(classes.astype(int), minlength=len(self.names))
        self.score += float(scores.sum())
        self.ignored += ignored
        self.agreed += agreed
        self.sure += sure

    def compare(self, boxes: np.ndarray, truth: np.ndarray) -> None:
        """Compare accepted boxes with true boxes, in images where these are known.

        Args:
            boxes: (n, 7) accepted: x, y, w, h, score, class, image.
            truth: (m, 7) true: x, y, w, h, anything, class, image, of the same images.
        """
        for image in np.unique(truth[:, 6]):
            mine, real = boxes[boxes[:, 6] == image], truth[truth[:, 6] == image]
            self.judged += len(mine)
            self.true += len(real)
            for c in np.unique(mine[:, 5]):
                a, b = mine[mine[:, 5] == c], real[real[:, 5] == c]
                self.matched += count_matches(a[:, :4], a[:, 4], b[:, :4], TRUE_IOU)

    def add_batch(
        self, labels: BatchLabels, images: int, agreement: tuple[int, int] | Tensor, truth: np.ndarray
    ) -> None:
        """Add one batch of the trainer: :meth:`update` and :meth:`compare`.

        Args:
            labels: Boxes of its unlabeled images.
            images: Number of these images.
            agreement: Confident anchors at which student and teacher agree, and all confident anchors; (2,) int64, if
                it is a tensor.
            truth: (m, 7) true boxes, as in :meth:`compare`.
        """
        boxes = labels.table()
        agreed, sure = agreement
        ignored = len(labels.ignore_bboxes)
        self.update(images=images, classes=boxes[:, 5], scores=boxes[:, 4], ignored=ignored, agreed=agreed, sure=sure)
        self.compare(boxes, truth)

    def share(self, total: Callable[[np.ndarray], np.ndarray]) -> None:
        """Add up the counts of all processes of a training.

        Args:
            total: Sum of an array over the processes.
        """
        names = ("images", "ignored", "matched", "true", "judged", "agreed", "sure", "score")
        counts = total(np.array([*(float(getattr(self, name)) for name in names), *self.accepted]))
        for name, count in zip(names, counts.tolist(), strict=False):
            setattr(self, name, count if name == "score" else round(count))
        self.accepted = counts[len(names) :].round().astype(np.int64)

    def summary(self) -> dict[str, float]:
        """The numbers of the epoch so far, by name."""
        total = int(self.accepted.sum())

        def ratio(a: float, b: float) -> float:
            return a / b if b else float("nan")

        return {
            "accepted": ratio(total, self.images),
            "ignored": ratio(self.ignored, self.images),
            "score": ratio(self.score, total),
            "agreement": ratio(int(self.agreed), int(self.sure)),
            "precision": ratio(self.matched, self.judged),
            "recall": ratio(self.matched, self.true),
            **{f"class/{name}": ratio(n, self.images) for name, n in zip(self.names, self.accepted.tolist())},
        }

    def line(self) -> str:
        """One line about the epoch for the log."""
        if not self.images:
            return "pseudo-labels: no unlabeled image in this epoch"
        numbers = self.summary()
        parts = [f"{numbers['accepted']:.2f} accepted boxes and {numbers['ignored']:.2f} ignored areas per image"]
        parts += [
            f"{name} {numbers[key]:.2f}"
            for name, key in (
                ("mean score", "score"),
                ("student agrees", "agreement"),
                ("precision", "precision"),
                ("recall", "recall"),
            )
            if not np.isnan(numbers[key])
        ]
        if self.starved and len(self.starved) < len(self.names):
            parts.append(f"none of: {', '.join(self.starved)}")
        return "pseudo-labels: " + ", ".join(parts)

    @property
    def starved(self) -> list[str]:
        """Classes without any accepted box so far."""
        return [name for name, n in zip(self.names, self.accepted) if not n]

    def record(self) -> dict[str, Any]:
        """:meth:`summary` for JSON: None where there is nothing to divide by."""
        return {k: None if np.isnan(v) else v for k, v in self.summary().items()}
