"""Class-wise confidence thresholds that follow the teacher, and the three zones they cut."""

from __future__ import annotations

from typing import Any

import numpy as np

ACCEPT, IGNORE, BACKGROUND = "accept", "ignore", "background"
"""Zones of a predicted box: trained as a true box; neither box nor background; no box at all."""


class ClassThresholds:
    """Dynamic confidence thresholds per class: the corrected moving-average rule of DFSSD.

    For each batch that holds detections of class c with score >= ``tau_low``::

        e_c <- beta e_c + (1 - beta) mean score of these detections,      n_c <- n_c + 1
        thr_c = clip(e_c / (1 - beta^n_c), tau0, tau_max);                tau0 while n_c = 0

    The published rule starts at 0 and moves once per detection without the division, so a class needs about a
    thousand detections before its threshold moves at all; dividing by ``1 - beta^n`` removes that bias.

    The rule moves over batches; :meth:`zone` uses the thresholds as they stand. To give every prediction the same
    treatment, first :meth:`update` with all batches, then :meth:`zone` all of them.
    """

    def __init__(
        self,
        nc: int,
        *,
        tau_low: float = 0.1,
        tau0: float = 0.5,
        tau_max: float = 0.9,
        decay: float = 0.99,
    ):
        """Start without any detection seen.

        Args:
            nc: Number of classes, >= 1.
            tau_low: Lowest score that is more than background, and that takes part in the average.
            tau0: Lowest threshold.
            tau_max: Highest threshold.
            decay: beta, in [0, 1).

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

    @property
    def rule(self) -> dict[str, float]:
        """The fixed numbers of the rule by name."""
        return {"tau_low": self.tau_low, "tau0": self.tau0, "tau_max": self.tau_max, "ema_decay": self.decay}

    def update(self, class_ids: np.ndarray, scores: np.ndarray) -> None:
        """Take in the detections of one batch of images, after non-maximum suppression; none are fine.

        Args:
            class_ids: Class of each detection, (n,) integers in [0, nc).
            scores: Confidence of each detection, (n,) in [0, 1].

        Raises:
            ValueError: The arrays do not fit each other, or hold values out of range.
        """
        class_ids, scores = self._checked(class_ids, scores)
        seen = scores >= self.tau_low
        count = np.bincount(class_ids[seen], minlength=self.nc)
        total = np.bincount(class_ids[seen], weights=scores[seen], minlength=self.nc)
        present = count > 0
        mean = total[present] / count[present]
        self._ema[present] = self.decay * self._ema[present] + (1 - self.decay) * mean
        self._batches[present] += 1

    def thresholds(self) -> np.ndarray:
        """Threshold of each class as it stands: (nc,) float64 in [tau0, tau_max]."""
        seen = self._batches > 0
        thresholds = np.full(self.nc, float(self.tau0))
        corrected = self._ema[seen] / (1 - self.decay ** self._batches[seen])
        thresholds[seen] = np.clip(corrected, self.tau0, self.tau_max)
        return thresholds

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
        class_ids, scores = self._checked(class_ids, scores)
        below = np.where(scores < self.tau_low, BACKGROUND, IGNORE)
        return np.where(scores >= self.thresholds()[class_ids], ACCEPT, below)

    def state_dict(self) -> dict[str, Any]:
        """Everything :meth:`load_state_dict` needs to go on, as plain numbers and lists (fit for JSON)."""
        return {"rule": self.rule, "ema": self._ema.tolist(), "batches": self._batches.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: The state was made with another rule or number of classes.
        """
        if state["rule"] != self.rule or len(state["ema"]) != self.nc or len(state["batches"]) != self.nc:
            raise ValueError(
                f"the saved thresholds were made with {state['rule']} and {len(state['ema'])} classes, "
                f"not with {self.rule} and {self.nc} classes"
            )
        self._ema = np.asarray(state["ema"], dtype=np.float64)
        self._batches = np.asarray(state["batches"], dtype=np.int64)

    def _checked(self, class_ids: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        class_ids, scores = np.asarray(class_ids), np.asarray(scores, dtype=np.float64)
        if class_ids.ndim != 1 or class_ids.shape != scores.shape:
            raise ValueError(f"class_ids and scores must be (n,) both, not {class_ids.shape} and {scores.shape}")
        if not class_ids.size:
            return np.zeros(0, dtype=np.int64), scores
        if not np.issubdtype(class_ids.dtype, np.integer) or class_ids.min() < 0 or class_ids.max() >= self.nc:
            raise ValueError(f"class_ids must be integers from 0 to {self.nc - 1}")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError("scores must be numbers from 0 to 1")
        return class_ids, scores
