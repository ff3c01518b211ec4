"""What a detector found on the images of a split, and its average precision on any draw of them.

The average precision is that of Ultralytics (101-point interpolation), computed from recorded matches: a detection of
an image that was drawn m times counts m times. 1,000 draws take seconds, because only the true positives and the
number of detections before each of them are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.files import atomic_write

DETECTIONS = "detections.npz"
"""Name of the file of all detections of a network on a part, in its folder, from which average precision is computed: a
box may have several classes."""

PREDICTIONS = "predictions.npz"
"""The same as a prediction answers: a box has one class. What thresholds do is read from these."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_AT_ONCE = 2_000_000
"""Draws times detections that are computed together: bounds the memory to a few hundred MB."""


@dataclass(frozen=True)
class Places:
    """Where the boxes of :class:`Detections` lie.

    Attributes:
        box: (D, 4) x1, y1, x2, y2 of each detection, as shares of the width and the height of its image.
        target_box: (B, 4) the same of each true box.
        target_image: (B,) number of the image of each true box.
        shape: (N, 2) height and width of each image [px].
        line: (N,) number of each image in the list of its split, from 0; -1 if it is in none.
    """

    box: np.ndarray
    target_box: np.ndarray
    target_image: np.ndarray
    shape: np.ndarray
    line: np.ndarray

    def sides(self, imgsz: int) -> np.ndarray:
        """(B,) square root of the area of each true box [px], in images whose longer side is ``imgsz``."""
        shape = self.shape[self.target_image]
        size = np.clip(self.target_box[:, 2:] - self.target_box[:, :2], 0, None) * shape[:, ::-1]
        scale = imgsz / np.maximum(1, shape.max(1, initial=1))
        return np.asarray(np.sqrt(size.prod(1)) * scale)


@dataclass(frozen=True)
class Detections:
    """Every detection on the images of a split with its matches, and every true box.

    Attributes:
        tp: (D, T) bool, whether the detection matches a true box at each of the T IoU thresholds, the lowest first.
        conf: (D,) scores, 0-1.
        pred_cls: (D,) predicted class ids.
        image: (D,) number of the image of each detection.
        target_cls: (B,) class ids of the true boxes.
        target_image: (B,) number of the image of each true box.
        images: File names of the images, in the order of their numbers.
        places: Where the boxes lie; None in files of earlier versions.
    """

    tp: np.ndarray
    conf: np.ndarray
    pred_cls: np.ndarray
    image: np.ndarray
    target_cls: np.ndarray
    target_image: np.ndarray
    images: tuple[str, ...]
    places: Places | None = None

    def write(self, path: Path) -> None:
        """Write everything to one ``.npz``, whole or not at all."""
        arrays = {
            "tp": np.packbits(self.tp.astype(bool), axis=1),
            "thresholds": np.array(self.tp.shape[1]),
            "conf": self.conf.astype(np.float32),
            "pred_cls": self.pred_cls.astype(np.int32),
            "image": self.image.astype(np.int32),
            "target_cls": self.target_cls.astype(np.int32),
            "target_image": self.target_image.astype(np.int32),
            "images": np.array(self.images, dtype=np.str_),
        }
        if self.places is not None:
            arrays |= {name: getattr(self.places, name).astype(np.float32) for name in ("box", "target_box")}
            arrays |= {name: getattr(self.places, name).astype(np.int32) for name in ("shape", "line")}
        with atomic_write(path) as temporary, open(temporary, "wb") as f:
            np.savez_compressed(f, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> Detections:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            tp = np.unpackbits(arrays["tp"], axis=1, count=int(arrays["thresholds"])).astype(bool)
            names = ("conf", "pred_cls", "image", "target_cls", "target_image")
            places = None
            if "shape" in arrays:
                known = ("box", "target_box", "target_image", "shape", "line")
                places = Places(**{name: arrays[name] for name in known})
            own = {name: arrays[name] for name in names}
            return cls(tp=tp, images=tuple(arrays["images"].tolist()), places=places, **own)

    def rates(self, thresholds: np.ndarray) -> dict[int, tuple[float | None, float | None]]:
        """Precision and recall of each class at IoU 0.5, of the detections at or above their thresholds.

        Args:
            thresholds: (C,) score from which a detection of each class counts.

        Returns:
            Class id -> precision (None without a detection) and recall (None without a true box), in [0, 1].
        """
        counts = self.conf >= thresholds[self.pred_cls.astype(int)]
        found = {}
        for class_id in range(len(thresholds)):
            own = counts & (self.pred_cls == class_id)
            hits, n_true = int(self.tp[own, 0].sum()), int((self.target_cls == class_id).sum())
            found[class_id] = (hits / own.sum() if own.any() else None, hits / n_true if n_true else None)
        return found

    def same_truth(self, other: object) -> bool:
        """Whether the true boxes are the same."""
        return isinstance(other, Detections) and np.array_equal(np.sort(self.target_cls), np.sort(other.target_cls))

    def scores(self, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """``map50`` and ``map50_95`` on one or several draws of the images.

        Args:
            draws: (R, N) int, how often each of the N images was drawn; None: each once.

        Returns:
            (R,) each, in [0, 1]: mean over the classes present in the draw of the average precision at the lowest IoU
            threshold, and of its mean over all of them; NaN for a draw without any true box.
        """
        precision = self._precision(np.ones((1, len(self.images)), int) if draws is None else draws)
        return {"map50_95": precision.mean(1), "map50": precision[:, 0]}

    def _precision(self, draws: np.ndarray) -> np.ndarray:
        """(R, T) mean of the average precision over the classes present in each draw."""
        order = np.argsort(-self.conf)  # as Ultralytics sorts, ties included
        tp, cls, image = self.tp[order], self.pred_cls[order], self.image[order]
        classes = np.unique(self.target_cls)
        chunk = max(1, _AT_ONCE // max(1, len(cls)))
        result = [np.empty((0, tp.shape[1]))]
        for start in range(0, len(draws), chunk):
            times = draws[start : start + chunk]
            total, present = np.zeros((len(times), tp.shape[1])), np.zeros((len(times), 1), int)
            for class_id in classes:
                targets = times[:, self.target_image[self.target_cls == class_id]].sum(1)
                own = cls == class_id
                value = _average_precision(tp[own], times[:, image[own]], targets)
                total += np.where(targets[:, None] > 0, value, 0.0)
                present += targets[:, None] > 0
            result.append(np.divide(total, present, out=np.full(total.shape, np.nan), where=present > 0))
        return np.concatenate(result)


def _average_precision(tp: np.ndarray, times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of one class: (D, T) matches, (R, D) counts, (R,) targets -> (R, T).

    Between two true positives recall is constant and precision falls, so the points just before and just after each
    true positive determine the curve. One that counts m times makes m steps of growing precision; as the curve
    is made monotonic from the right, its first step already has the value of the last one.
    """
    rounds, thresholds = len(times), int(tp.shape[1])
    result, zero = np.zeros((rounds, thresholds)), np.zeros((rounds, 1))
    if not tp.any():
        return result
    n_detections = times.cumsum(1)  # detections up to and including each
    for threshold in range(thresholds):
        hits = tp[:, threshold].nonzero()[0]
        if not len(hits):
            continue
        m, after = times[:, hits], n_detections[:, hits]
        found = m.cumsum(1)
        before = found - m
        steps = np.stack([before, before + np.minimum(m, 1), found], axis=2).reshape(rounds, -1)
        shown = np.stack([after - m, after - m + np.minimum(m, 1), after], axis=2).reshape(rounds, -1)
        last = found[:, -1:]
        steps, shown = np.concatenate([steps, last], 1), np.concatenate([shown, n_detections[:, -1:]], 1)
        values = np.divide(steps, shown, out=np.ones(steps.shape), where=shown > 0)
        falling = np.maximum.accumulate(values[:, ::-1], axis=1)[:, ::-1]
        recall = steps / np.maximum(targets, 1)[:, None]
        x = np.concatenate([zero, recall, recall[:, -1:], zero + 1], 1)
        y = np.concatenate([zero + 1, falling, zero, zero], 1)
        curves = np.array([np.interp(_RECALLS, *curve) for curve in zip(x, y)])
        result[:, threshold] = np.where(last[:, 0], (curves[:, 1:] + curves[:, :-1]).mean(1) / 2, 0.0)
    return result
