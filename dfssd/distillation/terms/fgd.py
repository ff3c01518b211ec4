"""FGD: focal and global distillation (Yang et al., CVPR 2022, arXiv:2111.11837).

Four parts: defects, background (both as in :mod:`dfssd.distillation.terms.ded`), attention, and relations between all
places. Sums of the published code are means here, so the weights of the parts are of the order of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.checks import check_positive, check_share
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_maps, exact, no_autocast
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.ded import decoupled_and_gradient
from dfssd.distillation.terms.levels import Maps, as_maps, mean_square, rows, total
from dfssd.distillation.terms.regions import attention_shares, attention_shares_back


def attention_distance(students: Sequence[Tensor], teachers: Sequence[Tensor], temperature: float = 0.5) -> Tensor:
    """mean|S_s - S_t| + mean|A_s - A_t| of the attentions to places and channels, mean over the levels, in [0, 4).

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.
        temperature: Of the attentions.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)
    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(lambda *own: attention_distance_and_gradient(own, theirs, temperature), exact(*students))


def attention_distance_and_gradient(
    own: Sequence[Tensor], theirs: Sequence[Tensor], temperature: float
) -> tuple[Tensor, Maps]:
    """:func:`attention_distance` of maps in fp32 or fp64, and its gradient for the student's."""
    count = len(own[0]) * len(own)
    flat = [rows(x) for x in own]
    shares = attention_shares(flat, temperature)
    others = attention_shares([rows(x) for x in theirs], temperature)
    gaps = [a - b for a, b in zip(shares, others, strict=True)]
    value = total(torch._foreach_abs([x for gap in gaps for x in gap])) / count
    places, channels = (Maps(torch._foreach_sign(gap)) * (1 / count) for gap in gaps)
    gradient = attention_shares_back(flat, shares, (places, channels), temperature)
    return value, Maps(as_maps(g, *x.shape[2:]) for g, x in zip(gradient, own, strict=True))


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

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """Weighted sum of the four parts, mean over the levels, >= 0."""
        check_same_maps(students, teachers)
        with no_autocast(students[0]):
            own, theirs = exact(*students), exact(*teachers)

            def compute(*maps: Tensor) -> tuple[Tensor, Maps]:
                focal, gradient = decoupled_and_gradient(maps, theirs, batch, self.background, self.temperature)
                attended, other = attention_distance_and_gradient(maps, theirs, self.temperature)
                gradient += other * self.attention
                return focal + self.attention * attended, gradient

            related = zip(self.own_context, own, self.their_context, theirs, strict=True)
            gap = mean_square([own_context(fs) - their_context(ft) for own_context, fs, their_context, ft in related])
            return closed_form(compute, own) + self.relation * gap
