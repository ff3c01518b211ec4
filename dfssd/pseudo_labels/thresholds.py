"""Class-wise confidence thresholds that follow the teacher, and the three zones that they define."""

from __future__ import annotations

from typing import Any

import numpy as np

from dfssd.config.schema import HIGHEST_THRESHOLD
from dfssd.config.sections import PseudoSection
from dfssd.wording import counted

ACCEPT, IGNORE, BACKGROUND = "accept", "ignore", "background"
"""Zones of a predicted box: trained on as a true box; neither box nor background; background."""

EVIDENCE = 5
"""Minimum number of detections of a class for an estimate of its precision."""


def precision_thresholds(
    class_ids: np.ndarray,
    scores: np.ndarray,
    correct: np.ndarray,
    nc: int,
    *,
    precision: float,
    tau_low: float,
) -> np.ndarray:
    """Threshold of each class for a target precision, estimated from detections with known true boxes.

    With n(t) detections of the class at score >= t, tp(t) of them correct, it is the lowest score t of a detection with
    ``tau_low`` <= t <= 0.9 for which ::

        n(t) >= 5    and    (tp(t) + 1/2) / (n(t) + 1) >= precision

    The left side is the posterior mean of the precision under Jeffreys' prior: tp / n shrunk towards 1/2 by one
    pseudo-detection, so that a few lucky detections do not suffice (5 of 5 count as 0.917, 45 of 50 as 0.892). It takes
    (precision - 1/2) / (1 - precision) detections without an error to reach the target: 4 for 0.9, 9 for 0.95,
    infinitely many for 1. The threshold never falls when ``precision`` rises.

    A lower confidence bound would be safer still, but with the few boxes of a rare class in a validation set no
    threshold would reach it, and the class would get no pseudo-labels.

    Args:
        class_ids: Class of each detection, (n,) integers in [0, nc).
        scores: Their confidences, (n,) in [0, 1].
        correct: Whether each matches a true box, (n,) bool.
        nc: Number of classes.
        precision: Target, in (0, 1].
        tau_low: Lowest threshold; detections below are left out.

    Returns:
        (nc,) float64 in [tau_low, 0.9], 0.9 for a class that does not reach the target in that range; NaN for a class
        with fewer than 5 detections from ``tau_low`` up.

    Raises:
        ValueError: A value is outside its range, or the shapes of the arrays differ.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"precision={precision} must be above 0 and at most 1")
    if not 0 <= tau_low <= HIGHEST_THRESHOLD:
        raise ValueError(f"tau_low={tau_low} must be in [0, {HIGHEST_THRESHOLD}]")
    class_ids, scores = _checked(class_ids, scores, nc)
    correct = np.asarray(correct, dtype=bool)
    if correct.shape != scores.shape:
        raise ValueError(f"correct must be (n,) like scores, not {correct.shape} beside {scores.shape}")
    thresholds = np.full(nc, np.nan)
    for c in range(nc):
        mine = (class_ids == c) & (scores >= tau_low)
        if mine.sum() < EVIDENCE:
            continue
        order = np.argsort(-scores[mine], kind="stable")
        falling = scores[mine][order]
        n = np.arange(1, len(falling) + 1)
        estimate = (correct[mine][order].cumsum() + 0.5) / (n + 1)
        last_of_its_score = np.append(falling[1:] < falling[:-1], True)  # equal scores are accepted together
        fits = last_of_its_score & (n >= EVIDENCE) & (estimate >= precision) & (falling <= HIGHEST_THRESHOLD)
        thresholds[c] = falling[fits].min(initial=HIGHEST_THRESHOLD)
    return thresholds


class ClassThresholds:
    """Dynamic confidence thresholds per class: the corrected moving-average rule of DFSSD.

    For each batch that holds detections of class c with score >= ``tau_low``::

        e_c <- beta e_c + (1 - beta) mean score of these detections,      n_c <- n_c + 1
        thr_c = clip(e_c / (1 - beta^n_c), tau0, tau_max);                tau0 while n_c = 0

    The published rule starts at 0 and moves once per detection without the division, so a class needs about a
    thousand detections before its threshold moves at all; dividing by ``1 - beta^n`` removes that bias.

    A class with a fixed threshold (from :func:`precision_thresholds`) keeps it; it may lie below ``tau0`` (so that a
    class with low but correct scores still gets pseudo-labels) or above ``tau_max``.

    Half of the detections lie below their mean: where a teacher is confident about a class, a threshold that follows
    the mean without limit discards half of the correct boxes. The published range is 0.5 to 0.9; that of
    ``cfg/default.yaml`` is lower.

    :meth:`zone` uses the current thresholds. To treat all predictions alike, first :meth:`update` with all batches,
    then :meth:`zone` all of them. Both take some tens of microseconds, fast enough for every training batch.
    """

    def __init__(
        self,
        nc: int,
        *,
        tau_low: float,
        tau0: float,
        tau_max: float,
        decay: float,
        fixed: np.ndarray | None = None,
    ):
        """Start without any detection.

        Args:
            nc: Number of classes, >= 1.
            tau_low: Score below which a detection is background and is not averaged.
            tau0: Lowest threshold of a class that follows the average.
            tau_max: Highest threshold of a class that follows the average.
            decay: beta, in [0, 1).
            fixed: Thresholds that do not move, (nc,) in [tau_low, 1]; NaN for a class that follows the average.
                None: all classes do.

        Raises:
            ValueError: A value is outside its range.
        """
        if nc < 1:
            raise ValueError(f"nc={nc} must be at least 1")
        if not 0 <= tau_low <= tau0 <= tau_max <= 1:
            raise ValueError(f"0 <= tau_low={tau_low} <= tau0={tau0} <= tau_max={tau_max} <= 1 must hold")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be in [0, 1)")
        self.nc, self.tau_low, self.tau0, self.tau_max, self.decay = nc, tau_low, tau0, tau_max, decay
        self._ema = np.zeros(nc)
        self._batches = np.zeros(nc, dtype=np.int64)
        self._fixed = self._checked_fixed(np.full(nc, np.nan) if fixed is None else fixed)
        self._thresholds: np.ndarray | None = None  # cache; None after an update

    @classmethod
    def from_rule(cls, nc: int, rule: PseudoSection, fixed: np.ndarray | None = None) -> ClassThresholds:
        """Initial thresholds of ``rule`` for ``nc`` classes; ``fixed`` as in the constructor."""
        return cls(nc, tau_low=rule.tau_low, tau0=rule.tau0, tau_max=rule.tau_max, decay=rule.ema_decay, fixed=fixed)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ClassThresholds:
        """Thresholds in the state that :meth:`state_dict` returned.

        Raises:
            KeyError: A part of the state is missing.
            TypeError: A part is of a wrong type.
            ValueError: A value is outside its range, or the parts do not fit each other.
        """
        rule = dict(state["rule"])
        thresholds = cls(len(state["ema"]), decay=rule.pop("ema_decay"), **rule)
        thresholds.load_state_dict(state)
        return thresholds

    @property
    def rule(self) -> dict[str, float]:
        """The constants of the rule by name."""
        return {"tau_low": self.tau_low, "tau0": self.tau0, "tau_max": self.tau_max, "ema_decay": self.decay}

    def update(self, class_ids: np.ndarray, scores: np.ndarray) -> None:
        """Update the averages with the detections of one batch of images, after non-maximum suppression.

        Args:
            class_ids: Class of each detection, (n,) integers in [0, nc).
            scores: Confidence of each detection, (n,) in [0, 1].

        Raises:
            ValueError: The shapes of the arrays differ, or values are out of range.
        """
        self.add(*self.count(class_ids, scores))

    def count(self, class_ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What :meth:`add` needs of detections: their number and the sum of their scores, by class, (nc,) both.

        Args:
            class_ids: As in :meth:`update`.
            scores: As in :meth:`update`.

        Raises:
            ValueError: As in :meth:`update`.
        """
        class_ids, scores = _checked(class_ids, scores, self.nc)
        counted = scores >= self.tau_low
        number = np.bincount(class_ids[counted], minlength=self.nc)
        return number, np.bincount(class_ids[counted], weights=scores[counted], minlength=self.nc)

    def add(self, count: np.ndarray, total: np.ndarray) -> None:
        """Update the averages with one batch of images.

        Args:
            count: (nc,) detections of each class.
            total: (nc,) sum of their scores.
        """
        present = count > 0
        if not present.any():
            return
        mean = total[present] / count[present]
        self._ema[present] = self.decay * self._ema[present] + (1 - self.decay) * mean
        self._batches[present] += 1
        self._thresholds = None

    def thresholds(self) -> np.ndarray:
        """Current threshold of each class: (nc,) float64 in [tau0, tau_max], in [tau_low, 1] if fixed."""
        return np.array(self._as_they_stand())

    def _as_they_stand(self) -> np.ndarray:
        if self._thresholds is None:
            seen = self._batches > 0
            thresholds = np.full(self.nc, float(self.tau0))
            corrected = self._ema[seen] / (1 - self.decay ** self._batches[seen])
            thresholds[seen] = np.clip(corrected, self.tau0, self.tau_max)
            self._thresholds = np.where(np.isnan(self._fixed), thresholds, self._fixed)
        return self._thresholds

    def zone(self, class_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Zone of each detection.

        Args:
            class_ids: (n,) integers in [0, nc).
            scores: (n,) in [0, 1].

        Returns:
            (n,) strings: "accept" for a score >= the threshold of the class, "background" for one < ``tau_low``,
            "ignore" between.

        Raises:
            ValueError: As in :meth:`update`.
        """
        class_ids, scores = _checked(class_ids, scores, self.nc)
        below = np.where(scores < self.tau_low, BACKGROUND, IGNORE)
        return np.where(scores >= self._as_they_stand()[class_ids], ACCEPT, below)

    def state_dict(self) -> dict[str, Any]:
        """The state for :meth:`load_state_dict`, as plain numbers and lists (for JSON)."""
        return {
            "rule": self.rule,
            "ema": self._ema.tolist(),
            "batches": self._batches.tolist(),
            "fixed": [None if np.isnan(t) else t for t in self._fixed.tolist()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state, including its fixed thresholds.

        Raises:
            ValueError: The state was made with another rule or number of classes.
        """
        lengths = {len(state[part]) for part in ("ema", "batches", "fixed")}
        if state["rule"] != self.rule or lengths != {self.nc}:
            raise ValueError(
                f"the saved thresholds were made with {state['rule']} and {counted(len(state['ema']), 'class')}, "
                f"not with {self.rule} and {counted(self.nc, 'class')}"
            )
        fixed = self._checked_fixed([np.nan if t is None else t for t in state["fixed"]])
        # copies, since update() writes into them
        self._ema = np.array(state["ema"], dtype=np.float64)
        self._batches = np.array(state["batches"], dtype=np.int64)
        self._fixed, self._thresholds = fixed, None

    def _checked_fixed(self, fixed: np.ndarray | list[float]) -> np.ndarray:
        fixed = np.array(fixed, dtype=np.float64)
        if fixed.shape != (self.nc,):
            raise ValueError(f"fixed must be ({self.nc},), not {fixed.shape}")
        if not (np.isnan(fixed) | ((fixed >= self.tau_low) & (fixed <= 1))).all():
            raise ValueError(f"fixed={fixed} must be from tau_low={self.tau_low} to 1, or NaN")
        return fixed


def _checked(class_ids: np.ndarray, scores: np.ndarray, nc: int) -> tuple[np.ndarray, np.ndarray]:
    class_ids, scores = np.asarray(class_ids), np.asarray(scores, dtype=np.float64)
    if class_ids.ndim != 1 or class_ids.shape != scores.shape:
        raise ValueError(f"class_ids and scores must be (n,) both, not {class_ids.shape} and {scores.shape}")
    if not class_ids.size:
        return np.zeros(0, dtype=np.int64), scores
    if not np.issubdtype(class_ids.dtype, np.integer) or class_ids.min() < 0 or class_ids.max() >= nc:
        raise ValueError(f"class_ids must be integers from 0 to {nc - 1}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be numbers from 0 to 1")
    return class_ids, scores
