"""FGD: focal and global distillation (Yang et al., CVPR 2022, arXiv:2111.11837).

Four parts: defects, background (both as in :mod:`dfssd.distillation.terms.ded`), attention, and relations between all
places. Sums of the published code are means here, so the weights of the parts are of the order of 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.checks import check_positive, check_share
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_shape, exact, mean, no_autocast
from dfssd.distillation.terms.ded import decoupled
from dfssd.distillation.terms.regions import attention


def attention_distance(student: Tensor, teacher: Tensor, temperature: float = 0.5) -> Tensor:
    """mean|S_s - S_t| + mean|A_s - A_t| of the attentions to places and channels, in [0, 4).

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.
        temperature: Of the attentions.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        pairs = zip(attention(student, temperature), attention(teacher, temperature), strict=True)
        return sum((mean((s - t).abs()) for s, t in pairs), torch.zeros((), device=student.device))


class Context(nn.Module):
    """Global context block (GcBlock, arXiv:1904.11492): x + transform(sum over places of softmax(W x) x)."""

    def __init__(self, channels: int):
        """Build the block for maps of ``channels`` channels, with a bottleneck of half as many."""
        super().__init__()
        inner = max(1, channels // 2)
        self.where = nn.Conv2d(channels, 1, 1, bias=False)  # a softmax over places is invariant to a bias
        self.transform = nn.Sequential(
            nn.Linear(channels, inner), nn.LayerNorm(inner), nn.ReLU(), nn.Linear(inner, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        places = x.flatten(2)
        weights = self.where(x).flatten(2).softmax(2)
        context = torch.einsum("nca,na->nc", places, weights[:, 0].to(places.dtype))
        shift: Tensor = self.transform(context)[:, :, None, None]
        return x + shift.to(x.dtype)


class FocalGlobal(FeatureTerm):
    """FGD: defects, background, attention and global relations."""

    bias = True

    def __init__(
        self,
        shape: PairShape,
        *,
        background: float = 0.5,
        attention: float = 1.0,
        relation: float = 0.5,
        temperature: float = 0.5,
    ):
        """Build adapters and context blocks; those of both networks are trained, as published.

        Args:
            shape: Channels of the compared layers.
            background: Weight of the background against the defects.
            attention: Weight of the distance between the attentions.
            relation: Weight of the distance between the maps after their context blocks.
            temperature: Of the attentions.

        Raises:
            ValueError: An option has a wrong value.
        """
        super().__init__(shape)
        self.background = check_share("background", background, below=float("inf"))
        self.attention = check_share("attention", attention, below=float("inf"))
        self.relation = check_positive("relation", relation)
        self.temperature = check_positive("temperature", temperature)
        self.own_context = nn.ModuleList(Context(c) for c in shape.teacher_channels)
        self.their_context = nn.ModuleList(Context(c) for c in shape.teacher_channels)

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Weighted sum of the four parts of one level, >= 0."""
        focal = decoupled(student, teacher, batch, background=self.background, temperature=self.temperature)
        attended = attention_distance(student, teacher, self.temperature)
        with no_autocast(student):
            fs, ft = exact(student, teacher)
            gap = self.own_context[level](fs) - self.their_context[level](ft)
            return focal + self.attention * attended + self.relation * mean(gap.square())
