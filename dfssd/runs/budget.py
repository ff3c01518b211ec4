"""Training budget of the teacher."""

from __future__ import annotations

import math

from dfssd.config import Config


def teacher_schedule(config: Config, per_epoch: int) -> tuple[int, int]:
    """Epochs and patience of a teacher.

    With ``teacher_epochs=auto`` it is trained until val stops improving. The plan is the larger of the student's budget
    and ``teacher_min_batches``, so that the learning rate has time to fall; early stopping ends it after a quarter of
    the plan without a better val score.

    Args:
        config: Resolved configuration.
        per_epoch: Batches per epoch.

    Returns:
        Epochs (passes over the labeled images), and epochs without a better val score after which it ends.
    """
    passes = config["teacher_epochs"]
    if passes != "auto":
        return passes, passes
    batches = max(config["teacher_min_batches"], per_epoch * config.epochs)
    passes = math.ceil(batches / per_epoch)
    return passes, config.train.get("patience", max(10, round(passes / 4)))
