"""What is asked of the labels of a step, and what is measured after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from dfssd.datasets.records import DetectionSet
from dfssd.errors import UserError


def check_new_labels(dataset: DetectionSet, trained: Sequence[Path], learnt: int) -> None:
    """Check that training labels speak of new classes only.

    Old boxes would be lost without a word, since the loss on labels does not see their classes.

    Args:
        dataset: Data of the step.
        trained: The labelled training images.
        learnt: Number of the first classes, those that the teacher knows.

    Raises:
        UserError: An image of the training part has a box of an old class.
    """
    wanted = set(trained)
    for item in dataset.items:
        if item.image in wanted and (old := sorted(c for c in item.classes if c < learnt)):
            raise UserError(
                f"{item.image}: its labels hold the old class '{dataset.names[old[0]]}' (id {old[0]}), but "
                "new_only=true learns the new classes alone; take these boxes out, or use new_only=false"
            )


PRECISIONS = {"map": "ap50", "map50_95": "ap50_95"}
"""Prefix of the values of a step -> what it is the mean of, by class."""


def mean_over(test: Mapping[str, Any], classes: Sequence[str], precision: str = "ap50") -> float | None:
    """Mean average precision over those of ``classes`` that have boxes in the test part; None if none has."""
    values = [value for name in classes if (value := test["per_class"][name][precision]) is not None]
    return fmean(values) if values else None


def forgetting(test: Mapping[str, Mapping[str, Any]], names: Sequence[str], learnt: int) -> dict[str, Any]:
    """What a step has won on the new classes, and what it has cost the old ones.

    Args:
        test: Section ``test`` of ``results.json``: ``teacher`` (with untrained rows for the new classes) and
            ``student``.
        names: All classes in id order.
        learnt: Number of old ones.

    Returns:
        ``classes_old``, ``classes_new``; in AP50 ``map_old``, ``map_new``, ``map_all``, ``map_old_before`` and
        ``forgetting`` (before minus after), in mAP50-95 the same with ``map50_95_`` (``map50_95_forgetting``). In
        [0, 1], forgetting in [-1, 1]; None where no class has a box.
    """
    old, new = names[:learnt], names[learnt:]
    values: dict[str, Any] = {"classes_old": list(old), "classes_new": list(new)}
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
    return values
