"""The signal self-test of a distillation: every term gives a gradient, the teacher is frozen, the adapters learn.

It exists because every published reference of this method trained without one of its terms and nobody noticed: each
term must be finite, non-zero and move the student, the teacher must not move, the adapters must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dfssd.distillation.pair import DistillationPair, state_hash
from dfssd.distributed import group
from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.trainers.watch import TermSignals, check_teacher, gradient_shares, no_gradient, not_finite

OVERFLOWS = 3
"""Consecutive probes with a finite loss but a gradient that is not finite, after which the training is stopped."""


class SignalSelfTest:
    """Watches one training of a :class:`DistillationPair`.

    Attributes:
        result: The outcome so far, for ``results.json``.
        records: Term -> ``by_epoch`` (mean value of each epoch) and ``grad_share_by_probe``.
    """

    def __init__(
        self,
        pair: DistillationPair,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int,
        frozen: bool,
        same_start: bool = False,
    ):
        """Note the state that must not change (teacher) and the one that must (adapters).

        Args:
            pair: The model in training.
            optimizer: Its optimizer.
            steps: Batches after which every term must have given the student a gradient.
            frozen: The teacher must not change.
            same_start: Student and teacher start identical, so terms between them have no gradient until the student
                has moved.

        Raises:
            UserError: The optimizer lacks an adapter, or holds a parameter of the teacher.
        """
        self.pair, self.steps, self.frozen = pair, steps, frozen
        self.records: dict[str, dict[str, list[float | None]]] = {
            name: {"by_epoch": [], "weight_by_epoch": [], "grad_share_by_probe": []} for name in pair.weights
        }
        optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
        adapters = dict(pair.projector.named_parameters())
        self.result: dict[str, Any] = {
            "adapters_in_optimizer": all(id(p) in optimized for p in adapters.values()),
            "teacher_in_optimizer": any(id(p) in optimized for p in pair.teacher_model.parameters()),
        }
        if not self.result["adapters_in_optimizer"] or self.result["teacher_in_optimizer"]:
            raise UserError("self-test: the optimizer must hold every adapter and nothing of the teacher; it does not")
        self._overflows: dict[str, int] = {}
        self._signals = TermSignals()
        self._learned: set[str] = set()
        self._adapters = {name: p.detach().clone() for name, p in adapters.items()}
        self._teacher_hash = state_hash(pair.teacher_model) if frozen else ""
        self.same_start = same_start
        self._first_head = [p.detach().clone() for p in self._head_parameters()] if same_start else []

    def _head_parameters(self) -> list[torch.Tensor]:
        """Parameters that every optimizer step with a learning rate changes."""
        return list(self.pair.student_model.model[-1].parameters())

    def _still_identical(self) -> bool:
        """Whether the student was still a copy of the teacher when the losses of the last batch were computed.

        They are computed before the step of their batch: a student that moves now counts from the next batch on.
        """
        identical = bool(self._first_head)
        if identical and any(
            not torch.equal(now, first) for now, first in zip(self._head_parameters(), self._first_head, strict=True)
        ):
            self._first_head = []
        return identical

    def state_dict(self) -> dict[str, Any]:
        """The state for :meth:`load_state_dict`, as JSON values."""
        return {
            "result": self.result,
            "records": self.records,
            "overflows": self._overflows,
            "signals": self._signals.state_dict(),
            "learned": sorted(self._learned),
            "identical": bool(self._first_head),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, with the weights of that moment."""
        self.result, self.records = dict(state["result"]), {name: dict(r) for name, r in state["records"].items()}
        self._overflows, self._learned = dict(state["overflows"]), set(state["learned"])
        self._signals.load_state_dict(state["signals"])
        if not state["identical"]:
            self._first_head = []

    def check_batch(self, epoch: int, batches: int) -> None:
        """Record the gradient shares if they were measured in the last batch.

        Args:
            epoch: Number of the epoch, from 0.
            batches: Batches done in this process.

        Raises:
            UserError: A loss is not finite, or a term has given no gradient in the first :attr:`steps` batches (those
                with boxes, for a term that needs boxes).
        """
        pair, identical = self.pair, self._still_identical()
        if not pair.probe or not pair.trust:
            return
        # of all processes, so that they judge alike
        boxes, *values = group.total(np.array([pair.boxes, *map(float, pair.values.values())])).tolist()
        found = dict(zip(pair.values, values, strict=True))
        self._check_finite(epoch, found)
        if not all(map(math.isfinite, pair.gradients.values())):
            return  # a gradient too large for half precision: the training's own scaler skips such a step, too
        shares = gradient_shares(pair.gradients)
        for name, value in found.items():
            self.records[name]["grad_share_by_probe"].append(shares[name])
            if not identical and (boxes or not pair.projector[name].needs_boxes):
                self._signals.add(name, alive=value != 0 and pair.gradients[name] > 0)
        if batches >= self.steps and self._can_be_judged():
            self._check_alive(batches, self.steps)

    def _check_finite(self, epoch: int, values: Mapping[str, float]) -> None:
        """Stop at a loss that is not finite, or at several gradients in a row that are not."""
        for name, norm in self.pair.gradients.items():
            value = values.get(name)  # None for the YOLO loss
            self._overflows[name] = 0 if math.isfinite(norm) else self._overflows.get(name, 0) + 1
            broken = value is not None and not math.isfinite(value)
            if broken or self._overflows[name] >= OVERFLOWS:
                if value is None:
                    raise not_finite("the YOLO loss", epoch, "lr0")
                raise not_finite(f"term {name}", epoch, f"{name}.weight or lr0")

    def _can_be_judged(self) -> bool:
        """Whether a student that started as its teacher has moved for long enough, or did not start so."""
        return not self.same_start or "checked_batches" in self.result or self._signals.most_batches >= self.steps

    def _check_alive(self, batches: int, probes: int) -> None:
        """Stop if a term gave no gradient in so many batches that apply to it; a term without any has to wait."""
        if dead := self._signals.dead(probes):
            raise no_gradient(dead, batches, "switch the term off with weight=0")
        self.result.setdefault("checked_batches", batches)
        self.result["terms_alive"] = self._signals.names

    def end_epoch(self, epoch: int, means: Mapping[str, Any], batches: int) -> None:
        """Record the mean of each term over an epoch.

        Raises:
            UserError: The epoch was shorter than :attr:`steps`, and a term has given no gradient so far.
        """
        if "checked_batches" not in self.result and self.pair.trust:
            self._check_alive(batches, 1)
        for name, record in self.records.items():
            value = float(means[name])
            # by position, since Ultralytics repeats an epoch after a loss that was not finite
            record["by_epoch"][epoch:] = [value if math.isfinite(value) else None]
            record["weight_by_epoch"][epoch:] = [self.pair.weight(name)]

    def check_before_checkpoint(self, *, last: bool, updates: int) -> None:
        """Check that the teacher is unchanged, bit for bit, and that the adapters learn.

        Done before each checkpoint, so that no checkpoint of a training that fails the check can be resumed or shipped.

        Args:
            last: This is the last epoch.
            updates: Optimizer steps so far.

        Raises:
            UserError: The teacher has moved, or an adapter has not.
        """
        if self.frozen:
            check_teacher(self.result, unchanged=state_hash(self.pair.teacher_model) == self._teacher_hash)
        adapters = dict(self.pair.projector.named_parameters())
        self._learned |= {name for name, p in adapters.items() if not torch.equal(p.detach(), self._adapters[name])}
        unmoved = [name for name in adapters if name not in self._learned]
        self.result["adapters_changed"] = not unmoved
        if last and self.pair.trust:
            self._check_at_the_end(unmoved, updates)

    def _check_at_the_end(self, unmoved: list[str], updates: int) -> None:
        """Warn of terms that no batch has applied to; stop if adapters have learned nothing."""
        if never := [name for name in self.pair.weights if not self._signals.alive.get(name)]:
            LOGGER.warning(f"self-test: not checked, since no batch applied to them: {', '.join(never)}")
        if not unmoved:
            return
        if updates >= 2:
            raise UserError(f"self-test: adapters {', '.join(unmoved)} did not change during training")
        # Ultralytics' first step has learning rate 0
        LOGGER.warning(f"only {updates} optimizer step(s): nothing is learned; raise epochs or lower nbs")

    def terms(self) -> dict[str, dict[str, Any]]:
        """The record of each term for ``results.json``."""
        table = {}
        for name, schedule in self.pair.schedules.items():
            record = self.records[name]
            values, shares = record["by_epoch"], record["grad_share_by_probe"]
            table[name] = {
                "weight": self.pair.weight(name),
                "schedule": schedule,
                "first": values[0] if values else None,
                "last": values[-1] if values else None,
                "grad_share": sum(s or 0.0 for s in shares) / len(shares) if shares else None,
                **record,
            }
        return table
