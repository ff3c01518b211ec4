"""Classes of a list that no image of the data set shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dfssd.datasets.class_names import NameList
from dfssd.datasets.records import Item

_SHOWN = 3


def used_names(names: NameList, items: Sequence[Item], *, keep: bool = False) -> tuple[NameList, list[Item], list[str]]:
    """Drop the classes that no box uses, unless their ids are a decision of the user.

    Args:
        names: The list, perhaps the presets of a tool or all categories of a large project.
        items: The images; their ids are moved.
        keep: Keep all classes: labels of new classes need not show those that a teacher knows already.

    Returns:
        Names, images, and warnings: which classes are not used.
    """
    used = sorted({class_id for item in items for class_id in item.classes})
    unused = [name for i, name in enumerate(names.names) if i not in set(used)]
    if not used or not unused:
        return names, list(items), []
    shown = ", ".join(unused[:_SHOWN]) + (", ..." if len(unused) > _SHOWN else "")
    if names.fixed or keep:
        return names, list(items), [f"classes of {names.origin} without a box: {shown}"]
    new_id = np.zeros(len(names.names), dtype=np.float32)
    new_id[used] = np.arange(len(used))
    moved = []
    for item in items:
        boxes = item.boxes
        if boxes is not None and len(boxes):
            boxes = np.column_stack([new_id[boxes[:, 0].astype(int)], boxes[:, 1:]]).astype(np.float32)
        moved.append(replace(item, boxes=boxes))
    told = f"classes that no box uses are dropped: {shown}; pass names= with all classes to keep them and their ids"
    return replace(names, names=tuple(names.names[i] for i in used)), moved, [told]
