"""The never-worse guard: how far the student may fall behind the baseline on the validation images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dfssd.wording import counted

FACTORS = (1.0, 0.25, 0.0)
"""Factor on everything that comes from the teacher: at first, cut back, switched off."""


class Guard:
    """Compares the student with the baseline at the same epoch and cuts back the teacher's share when it falls behind.

    A validation is bad when the student's mAP50-95 is lower than the baseline's by more than ``noise``; it stands for
    the epochs since the validation before. After ``patience`` bad epochs in a row the factor falls from 1 to 0.25,
    after as many more to 0: from then on the student is trained like the baseline.

    Attributes:
        level: Position in :data:`FACTORS`.
        events: What was done: dictionaries with ``epoch`` (from 1), ``factor`` and ``why``.
    """

    def __init__(self, baseline: Sequence[float | None], *, noise: float, patience: int, every: int):
        """Start with full trust.

        Args:
            baseline: Validation mAP50-95 of the baseline after each of its epochs, None without validation; a value
                stands for later epochs until the next one. Empty: nothing is compared.
            noise: Difference that can be chance, >= 0.
            patience: Bad epochs in a row before anything is done, >= 1.
            every: Epochs from one validation to the next, >= 1.

        Raises:
            ValueError: ``patience``, ``every`` or ``noise`` is out of range.
        """
        if patience < 1 or every < 1 or noise < 0:
            raise ValueError(f"patience={patience} and every={every} must be at least 1 and noise={noise} at least 0")
        self.baseline, self.noise, self.patience, self.every = list(baseline), noise, patience, every
        self.level = 0
        self.bad = 0
        self.epochs = 0
        self.events: list[dict[str, Any]] = []

    @property
    def factor(self) -> float:
        """Factor on the loss of pseudo-boxes and on all distillation terms."""
        return FACTORS[self.level]

    def step(self, epoch: int, value: float) -> str | None:
        """Judge an epoch that has been validated.

        Args:
            epoch: Number of the epoch, from 0.
            value: Validation mAP50-95 of the student after it; NaN counts as 0.

        Returns:
            One line on what was done and why, or None.
        """
        self.epochs = epoch + 1
        if not self.baseline or self.level == len(FACTORS) - 1:
            return None
        value = 0.0 if math.isnan(value) else value
        floor = next((known for known in self.baseline[epoch::-1] if known is not None), 0.0)
        self.bad = self.bad + epoch % self.every + 1 if value < floor - self.noise else 0
        if self.bad < self.patience:
            return None
        self.bad = 0
        self.level += 1
        why = (
            f"validation mAP50-95 {value:.3f} was below the baseline's {floor:.3f} at the same epoch by more than "
            f"{self.noise:.3f} for {counted(self.patience, 'epoch')} in a row"
        )
        self.events.append({"epoch": epoch + 1, "factor": self.factor, "why": why})
        done = f"cut back to {self.factor:g}" if self.factor else "switched off"
        return f"guard: the weight of pseudo-labels and distillation is {done}: {why}"

    def state_dict(self) -> dict[str, Any]:
        """The state for :meth:`load_state_dict`, as JSON values."""
        return {"level": self.level, "bad": self.bad, "epochs": self.epochs, "events": [dict(e) for e in self.events]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.level, self.bad, self.epochs = state["level"], state["bad"], state["epochs"]
        self.events = [dict(event) for event in state["events"]]
