"""How far a difference in mAP50-95 depends on which test images were drawn.

A paired bootstrap: the test images are drawn again, with replacement, the same ones for both detectors, and the mean
average precision of both is recomputed. The interval covers the choice of the test images, not the training seed.

The average precision is that of Ultralytics (101-point interpolation), computed from recorded matches: a detection of
an image that was drawn m times counts m times. 1,000 draws take seconds, because only the true positives and the
number of detections before each of them are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.files import atomic_write

_RECALLS = np.linspace(0.0, 1.0, 101)
_CHUNK = 50
"""Draws that are computed together: bounds the memory to a few hundred MB at 100,000 detections."""


@dataclass(frozen=True)
class Detections:
    """Every detection on the test images with its matches, and every true box.

    Attributes:
        tp: (D, T) bool, whether the detection matches a true box at each of the T IoU thresholds.
        conf: (D,) scores, 0-1.
        pred_cls: (D,) predicted class ids.
        image: (D,) number of the image of each detection.
        target_cls: (B,) class ids of the true boxes.
        target_image: (B,) number of the image of each true box.
        images: File names of the images, in the order of their numbers.
    """

    tp: np.ndarray
    conf: np.ndarray
    pred_cls: np.ndarray
    image: np.ndarray
    target_cls: np.ndarray
    target_image: np.ndarray
    images: tuple[str, ...]

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
        with atomic_write(path) as temporary, open(temporary, "wb") as f:
            np.savez_compressed(f, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> Detections:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            tp = np.unpackbits(arrays["tp"], axis=1, count=int(arrays["thresholds"])).astype(bool)
            names = ("conf", "pred_cls", "image", "target_cls", "target_image")
            return cls(tp=tp, images=tuple(arrays["images"].tolist()), **{name: arrays[name] for name in names})


def mean_average_precision(detections: Detections, draws: np.ndarray | None = None) -> np.ndarray:
    """Return the mAP of one detector on one or several draws of the test images.

    Args:
        detections: What the detector found.
        draws: (R, N) int, how often each of the N images was drawn; None: each once.

    Returns:
        (R,) mean over the classes present in the draw, and over the IoU thresholds, of the average precision, in
        [0, 1]; NaN for a draw without any true box.
    """
    draws = np.ones((1, len(detections.images)), int) if draws is None else draws
    order = np.argsort(-detections.conf)  # as Ultralytics sorts, ties included
    tp, cls, image = detections.tp[order], detections.pred_cls[order], detections.image[order]
    classes = np.unique(detections.target_cls)
    result = []
    for start in range(0, len(draws), _CHUNK):
        times = draws[start : start + _CHUNK]
        precision = np.full((len(times), len(classes)), np.nan)
        for column, class_id in enumerate(classes):
            targets = times[:, detections.target_image[detections.target_cls == class_id]].sum(1)
            own = cls == class_id
            value = _average_precision(tp[own], times[:, image[own]], targets)
            precision[:, column] = np.where(targets > 0, value, np.nan)
        present = ~np.isnan(precision)
        total = np.where(present, precision, 0).sum(1)
        result.append(np.divide(total, present.sum(1), out=np.full(len(times), np.nan), where=present.any(1)))
    return np.concatenate(result)


def _average_precision(tp: np.ndarray, times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Average precision of one class, mean over the thresholds: (D, T) matches, (R, D) counts, (R,) targets -> (R,).

    Between two true positives recall is constant and precision falls, so the points just before and just after each
    true positive determine the curve. One that counts m times makes m steps of growing precision; as the curve
    is made monotonic from the right, its first step already has the value of the last one.
    """
    rounds, thresholds = len(times), int(tp.shape[1])
    if not tp.any():
        return np.zeros(rounds)
    n_detections = times.cumsum(1)  # detections up to and including each
    total = np.zeros(rounds)
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
        for r in range(rounds):
            if last[r, 0]:
                x = np.concatenate([[0.0], recall[r], [recall[r, -1], 1.0]])
                y = np.concatenate([[1.0], falling[r], [0.0, 0.0]])
                curve = np.interp(_RECALLS, x, y)
                total[r] += (curve[1:] + curve[:-1]).mean() / 2
    return total / thresholds


def paired_bootstrap(
    a: Detections, b: Detections, *, rounds: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Difference in mAP50-95 of ``a`` minus ``b`` on the same images, with its bootstrap percentile interval.

    Args:
        a: Detections of the one detector.
        b: Detections of the other one, on the same images.
        rounds: Draws of the test images.
        seed: Seed of the draws; the same seed draws the same images for every pair.
        level: Share of the draws inside the interval, (0, 1).

    Returns:
        Difference on the images as they are, lower and upper end of the interval.

    Raises:
        ValueError: The two were not measured on the same images, or these have no true box.
    """
    if a.images != b.images or not np.array_equal(np.sort(a.target_cls), np.sort(b.target_cls)):
        raise ValueError("the two detectors were not measured on the same images: no paired comparison is possible")
    random = np.random.default_rng(seed)
    n = len(a.images)
    draws = random.multinomial(n, np.full(n, 1 / n), size=rounds)
    drawn = mean_average_precision(a, draws) - mean_average_precision(b, draws)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        raise ValueError("the test images have no true boxes: there is nothing to compare")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    difference = mean_average_precision(a)[0] - mean_average_precision(b)[0]
    return float(difference), float(low), float(high)
