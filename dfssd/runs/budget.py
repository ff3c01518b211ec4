"""Budgets of trainings: how long the teacher learns, and how often a network is validated."""

from __future__ import annotations

import math

from dfssd.config import Config
from dfssd.wording import counted


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


def why_longer(config: Config, epochs: int) -> str:
    """Why the teacher is planned for more epochs than were asked for, and what makes a trial short; else nothing.

    ``epochs=`` is the length of the student: a short one, too, deserves a teacher that has learned something. Who types
    ``epochs=5`` to try a line expects five epochs of every network, as Ultralytics would train them.

    Args:
        config: Resolved configuration.
        epochs: Epochs that are planned for the teacher.
    """
    if config["teacher_epochs"] != "auto" or epochs <= config.epochs or "teacher_min_batches" in config.given:
        return ""
    return (
        f"teacher: {counted(epochs, 'epoch')}, since teacher_epochs=auto plans "
        f"{counted(config['teacher_min_batches'], 'batch')} (teacher_min_batches) or more, whatever epochs= is; for a "
        f"short trial add teacher_epochs={config.epochs}"
    )


def share_of_unlabeled(config: Config, labeled: int, unlabeled: int) -> float:
    """Share of unlabeled images in a batch, [0, 1): ``unlabeled_ratio``, at most the ratio of the two sets.

    Args:
        config: Resolved configuration.
        labeled: Labeled training images.
        unlabeled: Unlabeled ones that the student learns from.
    """
    ratio: float = min(config["unlabeled_ratio"], unlabeled / labeled)
    return ratio / (1 + ratio)


def epoch_length(config: Config, labeled: int, unlabeled_share: float) -> int:
    """Batches in an epoch of the student: ``batches_per_epoch``, or as many as show each labeled image once.

    Args:
        config: Resolved configuration.
        labeled: Labeled training images.
        unlabeled_share: Share of unlabeled images in a batch, [0, 1).
    """
    if config["batches_per_epoch"] != "auto":
        return int(config["batches_per_epoch"])
    from dfssd.trainers.sampler import batch_composition

    per_batch, _ = batch_composition(config.batch, unlabeled_share)
    return math.ceil(labeled / per_batch)


VALIDATION_SHARE = 0.1
"""Longest validation, as a share of the training between two of them, with ``val_every=auto``."""

PASSES = 3
"""Forward passes that take as long as a training step on the same images."""

FEWEST = 10
"""Validations in a training, with ``val_every=auto``; it must be long enough."""


def validation_interval(config: Config, *, val: int, images: int, epochs: int) -> int:
    """Epochs from one validation to the next.

    With ``val_every=auto`` the smallest number k with ``val / (3 * images * k) <= 0.1``, but at most a tenth of the
    epochs. It follows from the lengths alone, so that networks trained for the same length are validated at the same
    times on any machine.

    Args:
        config: Resolved configuration.
        val: Validation images.
        images: Images that the network learns from in an epoch.
        epochs: Length of the training.
    """
    if config["val_every"] != "auto":
        return int(config["val_every"])
    wanted = math.ceil(val / (PASSES * images * VALIDATION_SHARE) - 1e-9)
    return max(1, min(wanted, epochs // FEWEST))
