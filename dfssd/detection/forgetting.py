"""What a step with new classes has gained, and what it has cost the old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from dfssd.results.sections import BoxScores, Incremental

PRECISIONS = {"map": "ap50", "map50_95": "ap50_95"}
"""Prefix of the values of a step -> what it is the mean of, by class."""


def mean_over(scores: BoxScores, classes: Sequence[str], precision: str = "ap50") -> float | None:
    """Mean average precision over those of ``classes`` that have boxes in the test set; None if none has."""
    values = [value for name in classes if (value := getattr(scores.per_class[name], precision)) is not None]
    return fmean(values) if values else None


def forgetting(test: Mapping[str, BoxScores], names: Sequence[str], known_classes: int) -> Incremental:
    """What a step has gained on the new classes, and what it has cost the old ones.

    Args:
        test: Scores of ``teacher`` (with untrained rows for the new classes) and ``student``.
        names: All classes in id order.
        known_classes: Number of old ones, which come first.

    Returns:
        Means in [0, 1], forgetting (before minus after) in [-1, 1]; None where no class has a box.
    """
    old, new = names[:known_classes], names[known_classes:]
    values: dict[str, float | None] = {}
    for prefix, precision in PRECISIONS.items():
        before = mean_over(test["teacher"], old, precision)
        after = mean_over(test["student"], old, precision)
        values |= {
            f"{prefix}_old": after,
            f"{prefix}_new": mean_over(test["student"], new, precision),
            f"{prefix}_all": mean_over(test["student"], names, precision),
            f"{prefix}_old_before": before,
            "forgetting" if prefix == "map" else f"{prefix}_forgetting": (
                None if before is None or after is None else before - after
            ),
        }
    return Incremental(classes_old=tuple(old), classes_new=tuple(new), **values)
