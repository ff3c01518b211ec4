"""Training budget of the teacher."""

from __future__ import annotations

import math

from dfssd.config import Config


def teacher_schedule(config: Config, per_epoch: int) -> tuple[int, int]:
    """Passes and patience of a teacher.

    With ``teacher_epochs=auto`` it is trained to the plateau on val: at least the student's budget and
    ``teacher_min_batches`` are planned, so that the learning rate has time to fall, and a quarter of that without a
    better val mAP ends it early.

    Args:
        config: Resolved configuration.
        per_epoch: Batches in a pass.

    Returns:
        Passes over the labeled images, and passes without a better val mAP after which it ends.
    """
    passes = config["teacher_epochs"]
    if passes != "auto":
        return passes, passes
    batches = max(config["teacher_min_batches"], per_epoch * config.epochs)
    passes = math.ceil(batches / per_epoch)
    return passes, config.train.get("patience", max(10, round(passes / 4)))
