"""The self-test of a segmentation training: does every loss teach, does the teacher stand still.

It exists for the same reason as :mod:`dfssd.trainers.selftest`: a loss without gradient looks like one that is small.
"""

from __future__ import annotations

import math
from typing import Any

from dfssd.errors import UserError
from dfssd.segmentation.criterion import BatchLoss
from dfssd.segmentation.teacher import SegmentationTeacher

SILENT = 1e-6
"""A loss of so little, before its weight, is rounding: what distillation leaves if the student is the teacher."""


class SegmentationSelfTest:
    """Watches one training.

    Attributes:
        result: The outcome so far, for ``results.json``.
    """

    def __init__(self, criterion: BatchLoss, teacher: SegmentationTeacher | None, *, steps: int):
        """Begin to watch.

        Args:
            criterion: The loss of the training.
            teacher: The teacher, if there is one.
            steps: Batches with something to teach after which every loss must have given the student a gradient.
        """
        self.criterion, self.teacher, self.steps = criterion, teacher, steps
        self.result: dict[str, Any] = {}
        self._asked: dict[str, int] = {}
        self._alive: dict[str, bool] = {}
        self._shares: dict[str, list[float]] = {}
        criterion.probe = steps > 0

    def check_batch(self, epoch: int) -> None:
        """Look at what was measured in the last batch, if anything was.

        Args:
            epoch: Number of the epoch, from 0.

        Raises:
            UserError: A loss is not finite, or has taught nothing in :attr:`steps` batches in which it could have.
        """
        if not self.criterion.probe:
            return
        gradients = self.criterion.gradients
        for name, value in self.criterion.values.items():
            if not math.isfinite(value) or not math.isfinite(gradients[name]):
                raise UserError(f"self-test: the {name} loss is not finite in epoch {epoch + 1}; lower lr0")
        total = sum(gradients.values())
        for name in self.criterion.asked:
            self._asked[name] = self._asked.get(name, 0) + 1
            heard = abs(self.criterion.values[name]) > SILENT * self.criterion.loss.weights[name]
            self._alive[name] = self._alive.get(name, False) or (heard and gradients[name] > 0)
            self._shares.setdefault(name, []).append(gradients[name] / total if total else 0.0)
        dead = [name for name, n in self._asked.items() if n >= self.steps and not self._alive[name]]
        if dead:
            raise UserError(
                f"self-test: {', '.join(dead)} gave the student no gradient in the first {self.steps} batches; check "
                "that the teacher is trained, or set the weight to 0"
            )
        self.result["alive"] = sorted(name for name, alive in self._alive.items() if alive)
        self.result["grad_share"] = {name: sum(shares) / len(shares) for name, shares in sorted(self._shares.items())}
        wanted = [name for name, weight in self.criterion.loss.weights.items() if weight]
        self.criterion.probe = any(self._asked.get(name, 0) < self.steps for name in wanted)

    def check_before_checkpoint(self) -> None:
        """Check that the teacher is the same bit for bit.

        Done before each checkpoint, so that none exists that the check has not passed.

        Raises:
            UserError: The teacher has changed.
        """
        if self.teacher is None:
            return
        self.result["teacher_unchanged"] = self.teacher.unchanged()
        if not self.result["teacher_unchanged"]:
            raise UserError("self-test: the teacher's weights changed during training; its result cannot be trusted")
