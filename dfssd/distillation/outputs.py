"""What one network says about one batch, as the distillation terms read it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Outputs:
    """Raw outputs of one network for one batch of N images.

    Student and teacher list the same levels in the same order, so anchor ``a`` is the same place in both.

    Attributes:
        feats: Feature maps of the compared layers, each (N, C_l, H_l, W_l).
        boxes: Box logits before the softmax over bins, (N, 4 * reg_max, A); channel = side * reg_max + bin.
        scores: Class logits, (N, nc, A).
        level_sizes: Anchors of each level of the detection head; they add up to A.
    """

    feats: list[Tensor]
    boxes: Tensor
    scores: Tensor
    level_sizes: list[int]
