"""Which anchors lie inside ignored boxes, from boxes in the layout of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dfssd.distillation.grid import grid
from dfssd.distillation.targets import padded_targets
from dfssd.distillation.transfer import to_device
from dfssd.pseudo_labels.records import BatchLabels


def ignored_anchors(
    boxes: torch.Tensor, batch_idx: torch.Tensor, n: int, levels: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """The (n, A) mask of ignored boxes (K, 4), xywh 0 to 1, each of an image, as a step computes it."""
    nothing = {"batch_idx": np.zeros(0), "cls": np.zeros((0, 1)), "bboxes": np.zeros((0, 4)), "score": np.zeros(0)}
    rows = {"ignore_bboxes": boxes, "ignore_batch_idx": batch_idx, "ignore_source": np.zeros(len(boxes))}
    tables = padded_targets(BatchLabels.of_batch({**nothing, **rows}), n, (32, 32))
    here = grid(tuple(levels), (1,) * len(levels), torch.device("cpu"))
    if "low" not in tables:
        return torch.zeros(n, len(here.points), dtype=torch.bool)
    found = to_device({name: tables[name] for name in ("low", "high")}, torch.device("cpu"))
    return here.inside(found["low"], found["high"])
