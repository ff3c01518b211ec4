"""MGD: masked generative distillation (Yang et al., ECCV 2022, arXiv:2205.01529)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.checks import check_share
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_maps, exact, no_autocast
from dfssd.distillation.terms.levels import mean_square


def mse(generated: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """mean((G - F_t)^2) >= 0, mean over the levels; maps (N, C, H, W), scalar in fp32; 0 for an empty batch.

    Published as a sum over N.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(generated, teachers)
    with no_autocast(generated[0]):
        return mean_square([a - b for a, b in zip(exact(*generated), exact(*teachers), strict=True)])


class MaskedGenerative(FeatureTerm):
    """MGD: the teacher's features generated from a part of the student's, by two convolutions."""

    bias = True

    def __init__(self, shape: PairShape, *, masked: float = 0.65):
        """Build adapters and generators (3x3 convolution, ReLU, 3x3 convolution).

        Args:
            shape: Channels of the compared layers.
            masked: Share of the places that are hidden, [0, 1), drawn anew for every image.

        Raises:
            ValueError: ``masked`` has a wrong value.
        """
        super().__init__(shape)
        self.masked = check_share("masked", masked)
        self.generators = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1))
            for c in shape.teacher_channels
        )

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`mse` between the teacher's maps and those generated from the visible places."""
        made = []
        for generator, student in zip(self.generators, students, strict=True):
            n, _, h, w = student.shape
            visible = torch.rand(n, 1, h, w, device=student.device) >= self.masked
            made.append(generator(student * visible))
        return mse(made, teachers)
