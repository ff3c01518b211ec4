"""The outputs of one network for one batch, as the distillation terms read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dfssd.distillation.heads import Tap


@dataclass
class Outputs:
    """Raw outputs of one network for one batch of N images.

    Student and teacher list the same levels in the same order, so anchor ``a`` is the same place in both.

    Attributes:
        feats: Feature maps of the compared layers, each (N, C_l, H_l, W_l).
        boxes: Box logits before the softmax over bins, (N, 4 * reg_max, A); channel = side * reg_max + bin.
        scores: Class logits of the classes that both networks know, (N, nc, A).
        levels: (height, width) of each level of the detection head [cells]; their products add up to A.
        hidden: Maps inside the head that the terms in use need: tap -> maps of the levels, each (N, C, H_l, W_l).
        head: The detection head itself, for terms that run a part of it.
        new_scores: Class logits of the classes that the teacher does not know, (N, new, A); None or empty without any.
    """

    feats: list[Tensor]
    boxes: Tensor
    scores: Tensor
    levels: list[tuple[int, int]]
    hidden: Mapping[Tap, list[Tensor]] = field(default_factory=dict)
    head: Any = None
    new_scores: Tensor | None = None

    @property
    def level_sizes(self) -> list[int]:
        """Anchors of each level."""
        return [height * width for height, width in self.levels]
