"""Operating points: score thresholds for a wanted rate of false alarms, and what they mean for whole images.

An image is called defective (NG) if any class reaches its threshold on it. The thresholds are chosen on the validation
images; the test images only say what to expect of them: how many defective images get through (escapes), and how many
good ones are thrown away (overkill).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dfssd.evaluation.detections import Detections
from dfssd.results.sections import Operating, OperatingPoint, Outcome, Share, images_for

RATES = (0.01, 0.02, 0.05)
"""The rates of false alarms that every run reports."""
LEVEL = 0.95
"""Confidence level of the intervals of shares."""
LOWEST = 0.01
"""Lowest threshold of a score: below it a class would be called by detections that mean nothing."""


@dataclass(frozen=True)
class ImageScores:
    """What a network says of whole images, and what is true.

    Attributes:
        score: (N, C) how strongly each class speaks on each image, in [0, 1], 0 where it does not: of a detector the
            highest score of its boxes, of masks the share of the image's area.
        true: (N, C) bool, whether the image has a defect of the class.
        lowest: Lowest threshold that makes sense for these scores.
        digits: Decimals of thresholds.
    """

    score: np.ndarray
    true: np.ndarray
    lowest: float = LOWEST
    digits: int = 4

    @classmethod
    def of(cls, detections: Detections, n_classes: int) -> ImageScores:
        """Those of a detector with ``n_classes`` classes."""
        score = np.zeros((len(detections.images), n_classes))
        np.maximum.at(score, (detections.image.astype(int), detections.pred_cls.astype(int)), detections.conf)
        true = np.zeros(score.shape, bool)
        true[detections.target_image.astype(int), detections.target_cls.astype(int)] = True
        return cls(score, true)

    @property
    def defective(self) -> np.ndarray:
        """(N,) whether the image has any defect."""
        return np.asarray(self.true.any(1))

    def below(self, score: float) -> float:
        """The highest threshold that a score still reaches, but not less than the lowest."""
        return max(self.lowest, math.floor(score * 10.0**self.digits) / 10.0**self.digits)

    def above(self, score: float) -> float:
        """The lowest threshold that a score does not reach, but not less than the lowest."""
        value = (math.floor(score * 10.0**self.digits) + 1) / 10.0**self.digits
        return max(self.lowest, value if value > score else value + 10.0**-self.digits)

    def called(self, thresholds: np.ndarray) -> np.ndarray:
        """(N,) whether the image is called defective with these (C,) thresholds."""
        return np.asarray((self.score >= thresholds).any(1))


def thresholds_for(val: ImageScores, rate: float) -> np.ndarray:
    """Thresholds with which at most a share ``rate`` of the good validation images is called defective.

    All classes get the same share q of false alarms: the threshold of a class is the lowest that at most a share q of
    the images without that class reaches. q is the largest with which the good images (those without any defect) keep
    the wanted rate. Where there is none, q = rate / C keeps it by the union bound.

    Args:
        val: Scores on the validation images.
        rate: Wanted rate of false alarms, in [0, 1).

    Returns:
        (C,) thresholds; higher than all scores of validation images without the class where even one would be too many.
    """
    good = ImageScores(val.score[~val.defective], val.true[~val.defective])
    if not len(good.score):
        return _at_share(val, rate / max(1, val.score.shape[1]))
    allowed = int(rate * len(good.score) + 1e-9)
    negatives = (~val.true).sum(0)
    shares = np.unique(np.concatenate([[0.0], *(np.arange(n + 1) / n for n in negatives if n)]))
    low, high = 0, len(shares) - 1  # shares[low] keeps the rate, or nothing does
    while low < high:
        middle = (low + high + 1) // 2
        kept = good.called(_at_share(val, shares[middle])).sum() <= allowed
        low, high = (middle, high) if kept else (low, middle - 1)
    return _at_share(val, shares[low])


def _at_share(val: ImageScores, share: float) -> np.ndarray:
    """(C,) for each class the lowest threshold that at most ``share`` of the images without it reaches."""
    thresholds = np.full(val.score.shape[1], val.lowest)
    for class_id in range(len(thresholds)):
        negatives = np.sort(val.score[~val.true[:, class_id], class_id])[::-1]
        allowed = int(share * len(negatives) + 1e-9)
        if allowed < len(negatives):
            thresholds[class_id] = val.above(float(negatives[allowed]))
    return thresholds


def balanced_thresholds(val: ImageScores) -> np.ndarray:
    """(C,) for each class the threshold with the highest F1 of "the image has this class"; the lowest of equal ones."""
    thresholds = np.full(val.score.shape[1], val.lowest)
    for class_id in range(len(thresholds)):
        score, true = val.score[:, class_id], val.true[:, class_id]
        tried = np.unique([val.below(float(x)) for x in score[true]])
        f1 = [2 * (true & (score >= t)).sum() / (true.sum() + (score >= t).sum()) for t in tried]
        if f1:
            thresholds[class_id] = tried[int(np.argmax(f1))]
    return thresholds


def share(count: int, of: int) -> Share | None:
    """``count / of`` with its exact interval (Clopper and Pearson, Biometrika 26, 1934); None of nothing.

    Its ends are quantiles of beta distributions: of ``Beta(k, n - k + 1)`` below, of ``Beta(k + 1, n - k)`` above.
    """
    from scipy.special import betaincinv

    if not of:
        return None
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(count, of - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, of - count, 1 - tail)) if count < of else 1.0
    return Share(value=count / of, low=low, high=high)


def outcome(images: ImageScores, thresholds: np.ndarray) -> Outcome:
    """What thresholds do on some images."""
    called, defective = images.called(thresholds), images.defective
    found, alarms = int((called & defective).sum()), int((called & ~defective).sum())
    n_defective, n_good = int(defective.sum()), int((~defective).sum())
    return Outcome(
        defective=n_defective,
        found=found,
        recall=share(found, n_defective),
        good=n_good,
        false_alarms=alarms,
        false_alarm_rate=share(alarms, n_good),
    )


def operating_points(
    val: ImageScores, test: ImageScores, names: Sequence[str], balanced: np.ndarray, wanted: float | None
) -> tuple[OperatingPoint, ...]:
    """The balanced thresholds and those for each rate of false alarms, with their outcome on val and test.

    Args:
        val: Scores on the validation images, which choose the thresholds.
        test: Scores on the test images.
        names: The C class names.
        balanced: (C,) thresholds that balance precision and recall on the validation images.
        wanted: A rate to report besides :data:`RATES`; None: no other.
    """
    rates = sorted({*RATES, *([] if wanted is None else [wanted])})
    chosen: Mapping[float | None, np.ndarray] = {None: balanced, **{rate: thresholds_for(val, rate) for rate in rates}}
    good = int((~val.defective).sum())
    return tuple(
        OperatingPoint(
            wanted=rate,
            thresholds={name: float(value) for name, value in zip(names, thresholds, strict=True)},
            val=outcome(val, thresholds),
            test=outcome(test, thresholds),
            resolved=rate is None or good >= images_for(rate),
        )
        for rate, thresholds in chosen.items()
    )


def selected(operating: Operating) -> OperatingPoint:
    """The point whose thresholds go with the files of the network."""
    return next(point for point in operating.points if point.wanted == operating.wanted)
