"""Self-training of the teacher on its own pseudo-labels; the best round by validation is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfssd.files import copy_atomically
from dfssd.log import LOGGER
from dfssd.results.sections import SelfTraining


def self_train(
    weights: Path,
    rounds: int,
    *,
    train: Callable[[int, Path], Path],
    score: Callable[[Path], float],
) -> SelfTraining:
    """Run all rounds and leave the best teacher in ``weights/teacher.pt``.

    Each round starts from the best teacher so far; a teacher that is not better stays as a file, unused. The first
    teacher is kept as ``teacher_round0.pt``, so that a killed stage repeats the same rounds.

    Args:
        weights: Folder with ``teacher.pt``.
        rounds: Number of rounds, >= 1.
        train: Trains round ``number`` (from 1) with the labels of the teacher given; returns the new teacher.
        score: Validation mAP50-95 of a teacher. The test set is not used.

    Returns:
        The section of the record.
    """
    files = [weights / "teacher_round0.pt"]
    if not files[0].exists():
        copy_atomically(weights / "teacher.pt", files[0])
    tried, best = [score(files[0])], 0
    for number in range(1, rounds + 1):
        files.append(train(number, files[best]))
        tried.append(score(files[number]))
        better = tried[number] > tried[best]
        LOGGER.info(
            f"self-training round {number}: val mAP50-95 {tried[number]:.3f} after {tried[best]:.3f}, "
            + ("kept" if better else "not kept")
        )
        best = number if better else best
    copy_atomically(files[best], weights / "teacher.pt")
    return SelfTraining(val_score=tuple(tried), taken=best)
