"""The outputs of one network for one batch, as the distillation terms read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfssd.distillation.heads import Tap
from dfssd.distributed import group


class Confidence(NamedTuple):
    """What a network believes of each anchor, without gradient.

    Attributes:
        each: (N, A) score of the best class, in (0, 1), at least fp32.
        best: (N, A) int64, that class.
        total: Sum of ``each``, at least N; scalar. Where processes train together, the mean over them.
    """

    each: Tensor
    best: Tensor
    total: Tensor

    def inside(self, region: Tensor | None) -> Confidence:
        """The same with no belief in anchors outside ``region`` (N, A) bool; None: everywhere."""
        if region is None:
            return self
        return Confidence.of(self.each * region, self.best)

    @classmethod
    def of(cls, each: Tensor, best: Tensor) -> Confidence:
        """Scores and classes with their total."""
        return cls(each, best, group.normalizer(each.sum(), max(1, len(each))))


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

    @property
    def knows_more(self) -> bool:
        """Whether there are classes that the teacher does not know."""
        return self.new_scores is not None and self.new_scores.shape[1] > 0

    @cached_property
    def confidence(self) -> Confidence:
        """Of the classes that both networks know; computed once for all that read it."""
        logits = self.scores.detach()
        with torch.autocast(logits.device.type, enabled=False):
            highest, best = logits.max(1)
            each = (highest if highest.dtype == torch.float64 else highest.float()).sigmoid()
            return Confidence.of(each, best)
