"""What the self-tests of all trainings share: every term gives a gradient, losses are finite, the teacher is frozen.

In the training log a loss without gradient looks like a small one, and a teacher that changes like one that does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dfssd.errors import UserError
from dfssd.wording import counted


class TermSignals:
    """Which terms of a loss have given the student a gradient, in the batches that apply to them.

    Attributes:
        alive: Term -> whether it gave a gradient in at least one of them.
    """

    def __init__(self) -> None:
        self.alive: dict[str, bool] = {}
        self._batches: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """The state for :meth:`load_state_dict`, as JSON values."""
        return {"alive": dict(self.alive), "batches": dict(self._batches)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.alive, self._batches = dict(state["alive"]), dict(state["batches"])

    def add(self, name: str, *, alive: bool) -> None:
        """Count a measured batch that applies to a term, and whether the term gave a gradient in it."""
        self._batches[name] = self.batches(name) + 1
        self.alive[name] = self.alive.get(name, False) or alive

    def batches(self, name: str) -> int:
        """Measured batches that apply to a term."""
        return self._batches.get(name, 0)

    @property
    def most_batches(self) -> int:
        """Measured batches of the term that has most of them."""
        return max(self._batches.values(), default=0)

    @property
    def names(self) -> list[str]:
        """The terms that have given a gradient, sorted."""
        return sorted(name for name, alive in self.alive.items() if alive)

    def dead(self, batches: int) -> list[str]:
        """The terms that gave no gradient in at least ``batches`` measured batches that apply to them."""
        return [name for name, alive in self.alive.items() if not alive and self._batches[name] >= batches]


def gradient_shares(norms: Mapping[str, float]) -> dict[str, float]:
    """Share of each gradient norm in the sum of all, in [0, 1]; 0 where there is no gradient at all."""
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}


def not_finite(what: str, epoch: int, lower: str) -> UserError:
    """The error about a loss or gradient that is not finite.

    Args:
        what: Name of the loss.
        epoch: Number of the epoch, from 0.
        lower: The arguments to lower.
    """
    return UserError(f"self-test: {what} is not finite in epoch {epoch + 1}; lower {lower}")


def no_gradient(names: Sequence[str], batches: int, remedy: str) -> UserError:
    """The error about terms that gave the student no gradient in so many batches."""
    return UserError(
        f"self-test: {', '.join(names)} gave the student no gradient in the first {counted(batches, 'batch')}; check "
        f"that the teacher is trained, or {remedy}"
    )


def check_teacher(result: dict[str, Any], *, unchanged: bool) -> None:
    """Record whether the teacher is unchanged, bit for bit.

    Raises:
        UserError: It has changed.
    """
    result["teacher_unchanged"] = unchanged
    if not unchanged:
        raise UserError("self-test: the teacher's weights changed during training; its result cannot be trusted")
