"""What a network learns from images alone: objectives over the feature maps of a detection head (P3 to P5).

Every layer before the head gets a gradient. The layers that an objective adds are dropped when it is reached.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.pretraining.corruption import PER_SIDE, corrupt, in_cells, outlines, standardized

GRID = 16
"""Side of the cells on which features are compared [px]."""

COSINE, SMOOTH = 0.9, 0.1
"""Weights of the two parts of :func:`feature_loss`, those of AM-RADIO (arXiv:2312.06709)."""

Source = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W), 0 to 1 -> features (N, D, H / GRID, W / GRID)."""


class Objective(nn.Module):
    """A loss over the feature maps of a network, and the layers that it needs besides."""

    @abstractmethod
    def prepare(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Any]:
        """What the network sees of ``images`` (N, 3, H, W), 0 to 1, and what it should say about them."""

    @abstractmethod
    def forward(self, feats: Sequence[Tensor], targets: Any) -> dict[str, Tensor]:
        """The losses by name, means over cells and levels.

        Args:
            feats: Feature maps, (N, C_l, H / stride_l, W / stride_l) each.
            targets: Of :meth:`prepare`.
        """


class ForeignParts(Objective):
    """Find foreign parts of an image, and say what they hide: corrupted image modeling (arXiv:2202.03382).

    The image is its own label, so there is nothing that could collapse, and small batches are no disadvantage. Where
    the parts are is learned by binary cross entropy against their coverage, what they hide by smooth L1 against the
    gray values of the clean image; both for ``PER_SIDE^2`` parts of each cell, on every level. The second loss is
    weighted by the coverage (and a tenth everywhere).

    CNNs learn from corrupted images as well as transformers do, while masks confuse them (same paper); denoising needs
    fewer images than comparing views (arXiv:2112.10740).
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]):
        """Add one layer to each level.

        Args:
            channels: C_l of the levels.
            strides: Sides of their cells [px].
        """
        super().__init__()
        self.strides = tuple(strides)
        self.heads = nn.ModuleList(nn.Conv2d(c, 2 * PER_SIDE**2, 1) for c in channels)

    def prepare(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Corrupted images; and the foreign parts (N, 1, H, W) with the clean gray values (N, 1, H, W)."""
        parts = outlines(len(images), (images.shape[2], images.shape[3]), generator)
        return corrupt(images, parts, generator), (parts, standardized(images))

    def forward(self, feats: Sequence[Tensor], targets: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """``where``: the cross entropy; ``what``: the smooth L1 loss."""
        parts, clean = targets
        where, what = [], []
        for head, feat, stride in zip(self.heads, feats, self.strides, strict=True):
            logits, values = head(feat).float().chunk(2, 1)
            covered = in_cells(parts, stride)
            where.append(F.binary_cross_entropy_with_logits(logits, covered))
            weight = covered + 0.1
            distance = F.smooth_l1_loss(values, in_cells(clean, stride), reduction="none")
            what.append((distance * weight).sum() / weight.sum())
        return {"where": torch.stack(where).mean(), "what": torch.stack(what).mean()}


class Features(Objective):
    """Predict the features of a foundation model, which is not part of the objective, from every level.

    AM-RADIO (arXiv:2312.06709), on the grid of :data:`GRID` px: finer levels are averaged to it, for coarser ones the
    features are.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], source: Source, width: int):
        """Add a projector of two layers to each level.

        Args:
            channels: C_l of the levels.
            strides: Sides of their cells [px].
            source: The foundation model; frozen, and kept outside of this module.
            width: D, channels of its features.
        """
        super().__init__()
        self.strides = tuple(strides)
        self._source = [source]  # a list: no part of the state, which is averaged and saved
        self.projectors = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GELU(), nn.Conv2d(width, width, 1)) for c in channels
        )

    def prepare(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images as they are; and their features (N, D, H / GRID, W / GRID)."""
        with torch.no_grad():
            return images, self._source[0](images)

    def forward(self, feats: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """``features``: mean of :func:`feature_loss` over the levels."""
        losses = []
        for projector, feat, stride in zip(self.projectors, feats, self.strides, strict=True):
            if stride < GRID:
                feat = F.avg_pool2d(feat, GRID // stride)
            wanted = targets if stride <= GRID else F.avg_pool2d(targets, stride // GRID)
            losses.append(feature_loss(projector(feat).float(), wanted.float()))
        return {"features": torch.stack(losses).mean()}

    def __getstate__(self) -> dict[str, Any]:
        """Without the foundation model: neither the moving average nor a checkpoint holds it."""
        return {**self.__dict__, "_source": []}


def feature_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """``0.9 (1 - cos(p, w)) + 0.1 smooth_l1(p, w)``, mean over images and places.

    Args:
        predicted: p, (N, D, h, w).
        wanted: w, of the same shape.
    """
    cosine = 1 - F.cosine_similarity(predicted, wanted, dim=1)
    return COSINE * cosine.mean() + SMOOTH * F.smooth_l1_loss(predicted, wanted)


def spread(features: Tensor) -> float:
    """How different the places of a feature map are: 1 if the directions are spread evenly, 0 if all are the same.

    The deviation of each channel of the normalized features over all images and places, times sqrt(C), mean over
    channels (SimSiam, arXiv:2011.10566); features that have collapsed have 0.

    Args:
        features: (N, C, H, W).
    """
    unit = F.normalize(features.detach().float(), dim=1)
    deviation = unit.transpose(0, 1).flatten(1).std(1, correction=0).mean()
    return round(float(deviation) * unit.shape[1] ** 0.5, 4)
