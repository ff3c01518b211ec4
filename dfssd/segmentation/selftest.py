"""The self-test of a segmentation training: every loss gives a gradient, the teacher is frozen.

See :mod:`dfssd.trainers.watch` for why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dfssd.segmentation.criterion import BatchLoss
from dfssd.segmentation.teacher import SegmentationTeacher
from dfssd.trainers.watch import TermSignals, check_teacher, gradient_shares, no_gradient, not_finite

NEGLIGIBLE = 1e-6
"""An unweighted loss up to this is rounding error, as distillation gives if the student equals the teacher."""


class SegmentationSelfTest:
    """Watches one training.

    Attributes:
        result: The outcome so far, for ``results.json``.
    """

    def __init__(self, criterion: BatchLoss, teacher: SegmentationTeacher | None, *, steps: int):
        """Start the self-test.

        Args:
            criterion: The loss of the training.
            teacher: The teacher, if there is one.
            steps: Applicable batches after which every loss must have given the student a gradient.
        """
        self.criterion, self.teacher, self.steps = criterion, teacher, steps
        self.result: dict[str, Any] = {}
        self._signals = TermSignals()
        self._shares: dict[str, list[float]] = {}
        criterion.probe = steps > 0

    def state_dict(self) -> dict[str, Any]:
        """The state for :meth:`load_state_dict`, as JSON values."""
        return {
            "result": self.result,
            "signals": self._signals.state_dict(),
            "shares": self._shares,
            "probe": self.criterion.probe,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.result, self._shares = dict(state["result"]), {name: list(s) for name, s in state["shares"].items()}
        self._signals.load_state_dict(state["signals"])
        self.criterion.probe = state["probe"]

    def check_batch(self, epoch: int) -> None:
        """Check what was measured in the last batch, if anything was.

        Args:
            epoch: Number of the epoch, from 0.

        Raises:
            UserError: A loss is not finite, or gave no gradient in :attr:`steps` batches that apply to it.
        """
        if not self.criterion.probe:
            return
        gradients, values = self.criterion.gradients, self.criterion.values
        for name, value in values.items():
            if not math.isfinite(value) or not math.isfinite(gradients[name]):
                raise not_finite(f"the {name} loss", epoch, "lr0")
        shares = gradient_shares(gradients)
        weights = self.criterion.loss.weights
        for name in self.criterion.applicable:
            self._signals.add(name, alive=abs(values[name]) > NEGLIGIBLE * weights[name] and gradients[name] > 0)
            self._shares.setdefault(name, []).append(shares[name])
        if dead := self._signals.dead(self.steps):
            raise no_gradient(dead, self.steps, "set the weight to 0")
        self.result["alive"] = self._signals.names
        self.result["grad_share"] = {name: sum(found) / len(found) for name, found in sorted(self._shares.items())}
        self.criterion.probe = any(self._signals.batches(name) < self.steps for name in weights if weights[name])

    def check_before_checkpoint(self) -> None:
        """Check that the teacher is unchanged, bit for bit.

        Done before each checkpoint, so that no checkpoint of a training that fails the check exists.

        Raises:
            UserError: The teacher has changed.
        """
        if self.teacher is not None:
            check_teacher(self.result, unchanged=self.teacher.unchanged())
