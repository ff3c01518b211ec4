"""Self-training of the teacher: it learns from its own pseudo-labels, and the best of all rounds stays (by val)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfssd.files import copy_whole
from dfssd.log import LOGGER
from dfssd.results.sections import SelfTraining


def self_train(
    weights: Path,
    rounds: int,
    *,
    train: Callable[[int, Path], Path],
    value: Callable[[Path], float],
) -> SelfTraining:
    """Run all rounds and leave the best teacher in ``weights/teacher.pt``.

    Each round starts from the best teacher so far; one that brings nothing is kept as a file and not built upon. Done
    again after a kill, it takes the same way: the first teacher is kept as ``teacher_round0.pt``.

    Args:
        weights: Folder with ``teacher.pt``.
        rounds: Number of rounds, >= 1.
        train: Trains round ``number`` (from 1) with the labels of the teacher given; returns the new teacher.
        value: Validation mAP50-95 of a teacher. The test part takes no part.

    Returns:
        The section of the record.
    """
    files = [weights / "teacher_round0.pt"]
    if not files[0].exists():
        copy_whole(weights / "teacher.pt", files[0])
    tried, best = [value(files[0])], 0
    for number in range(1, rounds + 1):
        files.append(train(number, files[best]))
        tried.append(value(files[number]))
        better = tried[number] > tried[best]
        LOGGER.info(
            f"self-training round {number}: val mAP50-95 {tried[number]:.3f} after {tried[best]:.3f}, "
            + ("taken" if better else "not taken")
        )
        best = number if better else best
    copy_whole(files[best], weights / "teacher.pt")
    return SelfTraining(val_score=tuple(tried), taken=best)
