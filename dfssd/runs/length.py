"""How many optimizer steps a training makes, and whether they are enough to teach a network anything."""

from __future__ import annotations

import numpy as np

LEAST_STEPS = 300
"""Optimizer steps before which a detector from random weights is not expected to find anything.

Ultralytics has no such number: its warm-up is a share of the epochs, however few batches they have, and the moving
average of the weights follows them closely at first. So it was read off the validation scores of 57 recorded trainings
of YOLOv8n and YOLOv8s from random weights (64 to 224 px, 450 to 3,750 steps): mAP50-95 reached 0.01 after 84 to 561
steps, in 53 of them within 300 (EXPERIMENTS.md).
"""

CONVERGED_STEPS = 1000
"""Optimizer steps below which a training is too short to converge.

In 56 of the same 57 trainings half of the best validation score was reached within 1,000 steps, in one after 1,122:
what ends before that ends on the way up.
"""


def is_random(start: str) -> bool:
    """Whether a detector that starts from this file has random weights: from an architecture, not from a checkpoint."""
    return start.endswith((".yaml", ".yml"))


def optimizer_steps(batches: int, epochs: int, accumulate: int, warmup_epochs: float) -> int:
    """Optimizer steps of a training that does not end early.

    Ultralytics makes a step when ``accumulate`` batches have come since the last one; in the warm-up that number rises
    from 1. Batches after the last step of the training are lost.

    Args:
        batches: Batches in an epoch, >= 1.
        epochs: Epochs, >= 1.
        accumulate: Batches to a step, once the training is warm, >= 1.
        warmup_epochs: Length of the warm-up [epochs]; the last epoch is none of it in any case.
    """
    total = batches * epochs
    most = min(accumulate, total)
    warm = round(max(0.0, min(warmup_epochs, epochs - 1)) * batches)
    steps, last = 0, -1
    needed = np.maximum(1, np.interp(np.arange(min(total, warm + 1)), [0, warm], [1, most]).round()) if warm else []
    for batch, wanted in enumerate(needed):
        if batch - last >= wanted:
            steps, last = steps + 1, batch
    return steps + (total - 1 - last) // most
