"""Intersection over union of predicted and true masks, from counts over a whole data set.

With C[t, p] the number of pixels of true class t predicted as p, IoU of class k = C[k, k] / (sum_p C[k, p] +
sum_t C[t, k] - C[k, k]): the sum of all intersections over the sum of all unions, not the mean over images, in which an
image with five pixels of a defect would count as much as one full of it. Matrices add up over images and batches.

Masks are compared at their own size: a prediction of another size is scaled to the mask, never the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.datasets.records import IGNORE
from dfssd.evaluation.operating import ImageScores, balanced_thresholds, operating_points
from dfssd.files import atomic_write
from dfssd.results.sections import Operating

PIXELS = "pixels.npz"
"""Name of the file of the pixel counts of a network on a part, in its folder."""

_LEAST_AREA = 1e-6
"""Lowest threshold of a share of the image's area: one pixel of a million."""


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of one confusion matrix; None where nothing could be measured.

    Attributes:
        iou: IoU of each class in [0, 1]; None for a class that is neither in truth nor in prediction.
        miou_fg: Mean IoU of the defect classes, ids 1 and up.
        miou_all: Mean IoU of all classes, the background included.
        pixel_accuracy: Share of the pixels that are predicted correctly, in [0, 1].
    """

    iou: tuple[float | None, ...]
    miou_fg: float | None
    miou_all: float | None
    pixel_accuracy: float | None


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, nc: int) -> np.ndarray:
    """Count how often each true class is predicted as each class.

    Args:
        truth: True class ids, integers of any shape: 0 to nc - 1, or 255 = not counted.
        prediction: Predicted class ids, 0 to nc - 1, of the same shape.
        nc: Number of classes, at most 255.

    Returns:
        (nc, nc) int64 pixels, rows = truth, columns = prediction. Matrices of several images may be added.

    Raises:
        ValueError: The shapes differ, or an id is out of range.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"a prediction of {prediction.shape} for a mask of {truth.shape}; scale it to the mask first")
    counted = truth != IGNORE
    truth, prediction = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for what, ids in (("mask", truth), ("prediction", prediction)):
        if ids.size and not 0 <= ids.min() <= ids.max() < nc:
            raise ValueError(f"ids {ids.min()} to {ids.max()} in the {what}, but there are the classes 0 to {nc - 1}")
    return np.bincount(nc * truth + prediction, minlength=nc * nc).reshape(nc, nc)


def segmentation_scores(confusion: np.ndarray) -> SegmentationScores:
    """Scores of a confusion matrix (nc, nc), which may be a sum over many images.

    The means are taken over the classes that occur in the truth *or* in the prediction: a class that is predicted but
    never true scores 0 and lowers the mean, one that is in neither has no IoU. (Ultralytics leaves out the former, too;
    the two agree where the truth holds every class.)

    Raises:
        ValueError: The matrix is not square, or has negative entries.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1] or (confusion < 0).any():
        raise ValueError(f"a confusion matrix is square and never negative; given {confusion.shape}")
    hits = np.diagonal(confusion)
    unions = confusion.sum(0) + confusion.sum(1) - hits
    iou = tuple(float(hit / union) if union else None for hit, union in zip(hits, unions, strict=True))
    total = confusion.sum()
    return SegmentationScores(iou, _mean(iou[1:]), _mean(iou), float(hits.sum() / total) if total else None)


@dataclass(frozen=True)
class PixelCounts:
    """The pixels of each class in each test image, from which the scores on any draw of the images follow.

    Attributes:
        hits: (N, nc) int64, pixels of each of the nc classes that are predicted as that class, in each of the N images.
        true: (N, nc) int64, pixels that are that class.
        found: (N, nc) int64, counted pixels that are predicted as that class.
        images: File names of the images, in the order of their numbers.
        line: (N,) place of each image in the list of the split, -1 if it is in none; None in files of earlier versions.
    """

    hits: np.ndarray
    true: np.ndarray
    found: np.ndarray
    images: tuple[str, ...]
    line: np.ndarray | None = None

    def write(self, path: Path) -> None:
        """Write everything to one ``.npz``, whole or not at all."""
        images = np.array(self.images, dtype=np.str_)
        with atomic_write(path) as temporary, open(temporary, "wb") as f:
            known = {} if self.line is None else {"line": self.line}
            counts = {"hits": self.hits, "true": self.true, "found": self.found}
            np.savez_compressed(f, allow_pickle=False, images=images, **counts, **known)

    @classmethod
    def read(cls, path: Path) -> PixelCounts:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            line = arrays.get("line")
            return cls(arrays["hits"], arrays["true"], arrays["found"], tuple(arrays["images"].tolist()), line)

    def same_truth(self, other: object) -> bool:
        """Whether the true masks have the same pixels of each class."""
        return isinstance(other, PixelCounts) and np.array_equal(self.true, other.true)

    def image_scores(self) -> ImageScores:
        """Share of the counted pixels of each image that are predicted as each of the nc - 1 defect classes."""
        counted = np.maximum(1, self.true.sum(1, keepdims=True))
        return ImageScores(self.found[:, 1:] / counted, self.true[:, 1:] > 0, lowest=_LEAST_AREA, digits=6)

    def scores(self, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """``miou_fg`` and ``miou_all`` of :func:`segmentation_scores` on one or several draws of the images.

        Args:
            draws: (R, N) int, how often each of the N images was drawn; None: each once.

        Returns:
            (R,) each, in [0, 1]; NaN for a draw without any pixel of these classes.
        """
        draws = np.ones((1, len(self.images)), int) if draws is None else draws
        hits, true, found = (draws @ counts for counts in (self.hits, self.true, self.found))
        unions = true + found - hits
        iou = np.divide(hits, unions, out=np.zeros(unions.shape), where=unions > 0)  # (R, nc)

        def mean(first: int) -> np.ndarray:
            present = (unions[:, first:] > 0).sum(1)
            return np.divide(iou[:, first:].sum(1), present, out=np.full(len(iou), np.nan), where=present > 0)

        return {"miou_fg": mean(1), "miou_all": mean(0)}


def operate(val: PixelCounts, test: PixelCounts, names: Sequence[str], wanted: float | None) -> Operating:
    """The operating points of a network for masks: shares of the image's area from which a class counts.

    Args:
        val: Its pixels on the validation images, which choose the thresholds.
        test: Its pixels on the test images.
        names: Names of the defect classes, ids 1 and up.
        wanted: ``false_alarms``.
    """
    known, tested = val.image_scores(), test.image_scores()
    return Operating(wanted=wanted, points=operating_points(known, tested, names, balanced_thresholds(known), wanted))


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
