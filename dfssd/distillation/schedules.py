"""Schedules: the factor of a term's weight over the course of the training (pure numbers, no state).

A step is a batch of the student's training, counted from 0 over all epochs, so a resumed run needs nothing but its
step. No factor is ever 0: a term that is switched on has a gradient from its first batch, so the signal self-test
can check it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from dfssd.wording import counted

COSINE_END = 0.1
"""Remaining share of the weight at the end of a cosine decay (the value of the DFSSD code)."""

RAMP_SHARE = 0.1
"""Share of the training during which a ramp rises."""


def cosine_decay(progress: float) -> float:
    """Half a cosine wave from 1 to :data:`COSINE_END`: ``progress`` 0, 0.5, 1 gives 1.0, 0.55, 0.1."""
    return 1 - (1 - COSINE_END) * (1 - math.cos(math.pi * progress)) / 2


def constant(step: int, total_steps: int, steps_per_epoch: int) -> float:
    """1 throughout."""
    return 1.0


def cosine(step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Cosine decay over the whole training."""
    return cosine_decay(step / total_steps)


def per_epoch_cosine(step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Cosine decay that starts anew in every epoch, as in the published code of DFSSD."""
    return cosine_decay(step % steps_per_epoch / steps_per_epoch)


def linear_ramp(step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Straight rise to 1 over the first tenth of the training, then 1."""
    return min(1.0, (step + 1) / max(1.0, RAMP_SHARE * total_steps))


def sigmoid_ramp(step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Smooth rise exp(-5 (1 - x)^2) to 1 over the first tenth of the training, then 1 (arXiv:1610.02242)."""
    return math.exp(-5 * (1 - linear_ramp(step, total_steps, steps_per_epoch)) ** 2)


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    schedule.__name__: schedule for schedule in (constant, cosine, per_epoch_cosine, linear_ramp, sigmoid_ramp)
}
"""The schedules by the names they have in recipes."""


def factor(kind: str, step: int, total_steps: int, steps_per_epoch: int) -> float:
    """Factor of schedule ``kind`` at a step.

    Args:
        kind: Name in :data:`SCHEDULES`.
        step: Batches done before this one, >= 0; steps past the end count as the end.
        total_steps: Batches of the whole training, >= 1.
        steps_per_epoch: Batches of an epoch, >= 1.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: Unknown schedule, or a length below 1.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"schedule={kind} is not known; choose one of: {', '.join(SCHEDULES)}")
    if step < 0 or total_steps < 1 or steps_per_epoch < 1:
        raise ValueError(
            f"step {step} of {total_steps} with {counted(steps_per_epoch, 'step')} per epoch is not a position in a "
            "training"
        )
    return SCHEDULES[kind](min(step, total_steps), total_steps, steps_per_epoch)
