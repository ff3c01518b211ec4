"""The signal self-test of a distillation: does every term teach, does the teacher stand still, do the adapters learn.

It exists because every published reference of this method trained without one of its terms and nobody noticed: each
term must be finite, non-zero and move the student, the teacher must not move, the adapters must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from ultralytics.utils import LOGGER

from dfssd.distillation.pair import DistillationPair, state_hash
from dfssd.errors import UserError

OVERFLOWS = 3
"""Probes in a row with a gradient that is not finite, while the loss is, after which the training is stopped."""


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
        alike: bool = False,
    ):
        """Note the state that must not change (teacher) and the one that must (adapters).

        Args:
            pair: The model in training.
            optimizer: Its optimizer.
            steps: Batches after which every term must have given the student a gradient.
            frozen: The teacher must not change.
            alike: Student and teacher start alike, so terms between them have nothing to say until the student has
                moved.

        Raises:
            UserError: The optimizer misses an adapter, or holds something of the teacher.
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
        self._alive: dict[str, bool] = {}
        self._asked: dict[str, int] = {}
        self._adapters = {name: p.detach().clone() for name, p in adapters.items()}
        self._teacher_hash = state_hash(pair.teacher_model) if frozen else ""
        self.alike = alike
        self._start = [p.detach().clone() for p in self._head()] if alike else []

    def _head(self) -> list[torch.Tensor]:
        """Parameters that every optimizer step with a learning rate changes."""
        return list(self.pair.student_model.model[-1].parameters())

    def load(self, terms: Mapping[str, Mapping[str, Any]], epochs: int) -> None:
        """Go on with the records of a training that was stopped after ``epochs`` epochs."""
        for name, record in self.records.items():
            for key in record:
                values = terms.get(name, {}).get(key, [])
                record[key] = values[: None if "probe" in key else epochs]

    def check_batch(self, epoch: int, batches: int) -> None:
        """Record the gradient shares if they were measured in the last batch.

        Args:
            epoch: Number of the epoch, from 0.
            batches: Batches done in this process.

        Raises:
            UserError: A loss is not finite, or a term has moved nothing in the first :attr:`steps` batches (those with
                boxes, for a term that needs boxes).
        """
        pair, alike = self.pair, bool(self._start)
        if alike and any(not torch.equal(now, then) for now, then in zip(self._head(), self._start, strict=True)):
            self._start = []  # from the next batch on; this one's losses were computed before its step
        if not pair.probe or not pair.trust:
            return
        for name, norm in pair.gradients.items():
            value = pair.values.get(name)
            self._overflows[name] = 0 if math.isfinite(norm) else self._overflows.get(name, 0) + 1
            broken = value is not None and not bool(torch.isfinite(value))
            if broken or self._overflows[name] >= OVERFLOWS:
                what = "the YOLO loss" if value is None else f"term {name}"
                cure = "lr0" if value is None else f"{name}.weight or lr0"
                raise UserError(f"self-test: {what} is not finite in epoch {epoch + 1}; lower {cure}")
        if not all(map(math.isfinite, pair.gradients.values())):
            return  # a gradient too large for half precision: the training's own scaler skips such a step, too
        total = sum(pair.gradients.values())
        for name, value in pair.values.items():
            norm = pair.gradients[name]
            self.records[name]["grad_share_by_probe"].append(norm / total if total > 0 else 0.0)
            if not alike and (pair.boxes or not pair.projector[name].needs_boxes):
                self._asked[name] = self._asked.get(name, 0) + 1
                self._alive[name] = self._alive.get(name, False) or (float(value) != 0 and norm > 0)
        heard = not self.alike or "checked_batches" in self.result or max(self._asked.values(), default=0) >= self.steps
        if batches >= self.steps and heard:
            self._judge(batches, self.steps)

    def _judge(self, batches: int, probes: int) -> None:
        """Stop if a term that could have spoken in so many probed batches has not; later ones wait for their boxes."""
        dead = [name for name, alive in self._alive.items() if not alive and self._asked[name] >= probes]
        if dead:
            raise UserError(
                f"self-test: {', '.join(dead)} gave the student no gradient in the first {batches} "
                "batches; check that the teacher is trained, or switch the term off with weight=0"
            )
        self.result.setdefault("checked_batches", batches)
        self.result["terms_alive"] = sorted(name for name, alive in self._alive.items() if alive)

    def end_epoch(self, epoch: int, means: Mapping[str, Any], batches: int) -> None:
        """Record the mean of each term over an epoch.

        Raises:
            UserError: The epoch was shorter than :attr:`steps`, and a term has moved nothing so far.
        """
        if "checked_batches" not in self.result and self.pair.trust:
            self._judge(batches, 1)
        for name, record in self.records.items():
            value = float(means[name])
            # by position, since Ultralytics repeats an epoch after a loss that was not finite
            record["by_epoch"][epoch:] = [value if math.isfinite(value) else None]
            record["weight_by_epoch"][epoch:] = [self.pair.weight(name)]

    def check_before_checkpoint(self, *, last: bool, updates: int) -> None:
        """Check that the teacher is the same bit for bit and that the adapters learn.

        Done before each checkpoint, so that no checkpoint exists, and none can be resumed or finished, that the check
        has not passed.

        Args:
            last: This is the last epoch.
            updates: Optimizer steps so far.

        Raises:
            UserError: The teacher has moved, or an adapter has not.
        """
        if self.frozen:
            self.result["teacher_unchanged"] = state_hash(self.pair.teacher_model) == self._teacher_hash
            if not self.result["teacher_unchanged"]:
                raise UserError(
                    "self-test: the teacher's weights changed during training; its result cannot be trusted"
                )
        parameters = self.pair.projector.named_parameters()
        still = [name for name, p in parameters if torch.equal(p.detach(), self._adapters[name])]
        self.result["adapters_changed"] = not still
        if last and self.pair.trust and (unheard := [n for n in self.pair.weights if not self._alive.get(n)]):
            LOGGER.warning(f"self-test: {', '.join(unheard)} has had no batch in which it could show that it teaches")
        if still and last and self.pair.trust:
            if updates >= 2:
                raise UserError(f"self-test: adapters {', '.join(still)} did not change during training")
            # Ultralytics' first step has learning rate 0
            LOGGER.warning(f"only {updates} optimizer step(s): nothing is learnt; raise epochs or lower nbs")

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
