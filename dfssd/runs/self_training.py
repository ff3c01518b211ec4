"""Self-training: networks of the teacher's size learn from the teacher; the best by validation becomes the teacher."""

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
    measure: str,
) -> SelfTraining:
    """Run all rounds and leave the best teacher in ``weights/teacher.pt``.

    Each round learns from the best teacher so far; a network that is not better stays as a file, unused. The first
    teacher is kept as ``teacher_round0.pt``, so that a killed stage repeats the same rounds.

    Args:
        weights: Folder with ``teacher.pt``.
        rounds: Number of rounds, >= 1.
        train: Trains the network of round ``number`` (from 1) by the teacher given; returns its file.
        score: Validation score of a teacher. The test set is not used.
        measure: What the score is.

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
            f"self-training round {number}: val {measure} {tried[number]:.3f} after {tried[best]:.3f}, "
            + ("kept" if better else "not kept")
        )
        best = number if better else best
    copy_atomically(files[best], weights / "teacher.pt")
    return SelfTraining(val_score=tuple(tried), taken=best)
