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


def mean_ap50(test: Mapping[str, Any], classes: Sequence[str]) -> float | None:
    """Mean AP50 over those of ``classes`` that have boxes in the test part; None if none has."""
    values = [value for name in classes if (value := test["per_class"][name]["ap50"]) is not None]
    return fmean(values) if values else None


def forgetting(test: Mapping[str, Mapping[str, Any]], names: Sequence[str], learnt: int) -> dict[str, Any]:
    """AP50 of old, new and all classes after a step, and what the step has cost the old ones.

    Args:
        test: Section ``test`` of ``results.json``: ``teacher`` (with untrained rows for the new classes) and
            ``student``.
        names: All classes in id order.
        learnt: Number of old ones.

    Returns:
        ``map_old``, ``map_new``, ``map_all``, ``map_old_before``, ``forgetting`` (before minus after), in [0, 1] or
        None where no class has a box.
    """
    old, new = names[:learnt], names[learnt:]
    before, after = mean_ap50(test["teacher"], old), mean_ap50(test["student"], old)
    return {
        "classes_old": list(old),
        "classes_new": list(new),
        "map_old": after,
        "map_new": mean_ap50(test["student"], new),
        "map_all": mean_ap50(test["student"], names),
        "map_old_before": before,
        "forgetting": None if before is None or after is None else before - after,
    }
