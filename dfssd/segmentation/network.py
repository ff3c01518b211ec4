"""MFF-Metal: a small segmentation network for surface defects, with a wide twin of the same shape as its teacher.

The encoder goes from full resolution down to 1/8 in four stages. Each stage after the first gets the image again and,
weighted by channel attention, the maps of all stages before it. The decoder makes two predictions, one from 1/8 and
1/4, one from 1/4 and 1/2, and adds them with weights that it predicts for each image.

There is no paper about it; the building blocks continue those of LMFFNet (Shi et al., arXiv:2208.11195). Widths of 30
(1.0 M parameters) for the student and 180 (34.4 M) for the teacher are those of the published experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.checks import check_integer

DILATIONS = ((2, 3), (4, 6), (8, 12))
"""Pairs of dilations; the blocks of the last stage use all three, those before only the first."""

WIDEST = 600
"""Largest width: 0.4 billion parameters."""


class Parts(NamedTuple):
    """The prediction and its components.

    Attributes:
        logits: gate[:, 0] * deep + gate[:, 1] * shallow, (N, nc, H, W).
        deep: Prediction from the maps at 1/8 and 1/4 (published as o48), (N, nc, H, W).
        shallow: Prediction from the maps at 1/4 and 1/2 (published as o24), (N, nc, H, W).
        gate: Weights of the two for each image, (N, 2), above 0, of sum 1.
    """

    logits: Tensor
    deep: Tensor
    shallow: Tensor
    gate: Tensor


class MFFMetal(nn.Module):
    """Network from an image to class logits at full resolution.

    Channels at 1, 1/2, 1/4 and 1/8 of the resolution are 1, 2, 3 and 4 times ``width``. The two predictions of the
    decoder get no loss of their own: :meth:`parts` returns them for inspection.

    Attributes:
        width: Channels at full resolution.
        nc: Classes with the background.
        blocks: Number of bottlenecks at 1/2, 1/4 and 1/8.
    """

    def __init__(self, width: int = 30, nc: int = 4, blocks: Sequence[int] = (2, 2, 6)):
        """Build the network with random weights (those of PyTorch's layers; none are published).

        Args:
            width: Channels at full resolution, a multiple of 6: half the channels of each later stage are split in
                three equal parts.
            nc: Classes with the background, 2 to 255 (in a mask, 255 means that the class is unknown).
            blocks: Number of bottlenecks at 1/2, 1/4 and 1/8; the last a multiple of 3, a third for each of the
                :data:`DILATIONS`.

        Raises:
            ValueError: An argument has a wrong value.
        """
        super().__init__()
        if check_integer("width", width, least=6) % 6 or width > WIDEST:
            raise ValueError(f"width={width} must be a multiple of 6 up to {WIDEST}, such as 30")
        if check_integer("nc", nc, least=2) > 255:
            raise ValueError(f"nc={nc} must be at most 255")
        if len(blocks) != 3:
            raise ValueError(f"blocks={tuple(blocks)} must be three numbers, one for each of 1/2, 1/4 and 1/8")
        for number in blocks:
            check_integer("number of blocks", number, least=1)
        if blocks[2] % 3:
            raise ValueError(
                f"blocks={tuple(blocks)} must end with a multiple of 3, a third for each pair of dilations"
            )
        self.width, self.nc, self.blocks = width, nc, tuple(blocks)
        c1, c2, c3, c4 = (width * m for m in (1, 2, 3, 4))
        self.stem = nn.Sequential(
            conv(3, c1, 3),
            norm_act(c1),
            conv(c1, c1, 3, dilation=2),
            norm_act(c1),
            conv(c1, c1, 3, dilation=2),
            norm_act(c1),
        )
        self.stages = nn.ModuleList(
            [
                Stage(c1, c2, DILATIONS[:1] * blocks[0], earlier=c1),
                Stage(c2, c3, DILATIONS[:1] * blocks[1], earlier=c1 + c2),
                Stage(c3, c4, [d for d in DILATIONS for _ in range(blocks[2] // 3)], earlier=c1 + c2 + c3),
            ]
        )
        self.decoder = nn.ModuleList([DecoderUnit(c3, c4, nc), DecoderUnit(c2, c3, nc)])

    def parts(self, x: Tensor) -> Parts:
        """The prediction with its two components and their weights.

        Args:
            x: Normalized images, (N, 3, H, W), H and W multiples of 8.

        Raises:
            ValueError: A side is no multiple of 8.
        """
        if not torch.jit.is_tracing() and (x.shape[2] % 8 != 0 or x.shape[3] % 8 != 0):
            raise ValueError(f"both sides of the images must be multiples of 8, not {x.shape[2]} and {x.shape[3]}")
        image, fused = x, self.stem(x)
        earlier = fused  # all maps so far at the present size, the newest first
        maps: list[Tensor] = []
        for stage in self.stages:
            image, earlier = half_size(image), half_size(earlier)
            fused = stage(fused, image, earlier)
            earlier = torch.cat([fused, earlier], 1)
            maps.append(fused)
        predictions: list[Tensor] = []
        votes: list[Tensor] = []
        for k, unit in enumerate(self.decoder):
            prediction, vote = unit(maps[1 - k], maps[2 - k])
            predictions.append(upsample(prediction, 4 if k == 0 else 2))
            votes.append(vote)
        deep, shallow = predictions
        gate = torch.cat(votes, 1).softmax(1)
        share = gate[:, :, None, None]
        return Parts(share[:, :1] * deep + share[:, 1:] * shallow, deep, shallow, gate)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (N, nc, H, W) of normalized images (N, 3, H, W); see :meth:`parts`."""
        return self.parts(x).logits


class Stage(nn.Module):
    """One step of the encoder: down to half the size, bottlenecks, fusion with the image and all earlier maps."""

    def __init__(self, channels_in: int, channels: int, dilations: Sequence[tuple[int, int]], earlier: int):
        """Build the stage.

        Args:
            channels_in: Channels of the map before.
            channels: Channels of the map after, more than before.
            dilations: Those of each bottleneck.
            earlier: Channels of all earlier stages' maps together.
        """
        super().__init__()
        self.down = Down(channels_in, channels)
        self.blocks = nn.Sequential(*(Bottleneck(channels, pair) for pair in dilations))
        self.fusion = Fusion(channels, channels + earlier)

    def forward(self, x: Tensor, image: Tensor, earlier: Tensor) -> Tensor:
        """(N, channels_in, 2h, 2w), image (N, 3, h, w) and earlier maps (N, earlier, h, w) -> (N, channels, h, w)."""
        x = self.down(x)
        return self.fusion(self.blocks(x), image, torch.cat([x, earlier], 1))


class Down(nn.Module):
    """Half the size: a 2x2 convolution gives the new channels, max pooling keeps the old ones."""

    def __init__(self, channels_in: int, channels: int):
        """Build a step from ``channels_in`` to more ``channels``."""
        super().__init__()
        self.conv = conv(channels_in, channels - channels_in, 2, stride=2)
        self.out = norm_act(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, 2h, 2w) -> (N, channels, h, w)."""
        return self.out(torch.cat([self.conv(x), F.max_pool2d(x, 2)], 1))


class Bottleneck(nn.Module):
    """Residual block, half as wide inside, with three ranges: depthwise branches without and with two dilations."""

    def __init__(self, channels: int, dilations: tuple[int, int]):
        """Build a block for a multiple of 6 ``channels``."""
        super().__init__()
        half, third = channels // 2, channels // 6
        self.reduce = nn.Sequential(conv(channels, half, 3), norm_act(half))
        self.branches = nn.ModuleList(
            nn.Sequential(conv(third, third, 3, dilation=d, groups=third), norm_act(third)) for d in (1, *dilations)
        )
        self.expand = nn.Sequential(conv(half, half, 3), norm_act(half), conv(half, channels, 1))
        self.out = norm_act(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        thirds = self.reduce(x).chunk(3, 1)
        seen: list[Tensor] = []
        for k, branch in enumerate(self.branches):
            seen.append(branch(thirds[k]))
        return self.out(x + self.expand(torch.cat(seen, 1)))


class Fusion(nn.Module):
    """A stage's map, the image and the attended maps that skip the stage, mixed by a 1x1 convolution."""

    def __init__(self, channels: int, skips: int):
        """Build a fusion of ``channels``, 3 of the image and ``skips`` back into ``channels``."""
        super().__init__()
        self.attend = ChannelAttention(skips)
        self.mix = nn.Sequential(norm_act(channels + 3 + skips), conv(channels + 3 + skips, channels, 1))

    def forward(self, x: Tensor, image: Tensor, skips: Tensor) -> Tensor:
        """(N, channels, h, w), image (N, 3, h, w) and skips (N, skips, h, w) -> (N, channels, h, w)."""
        return self.mix(torch.cat([x, image, self.attend(skips)], 1))


class ChannelAttention(nn.Module):
    """Weights of the channels from the means of the map and of its four quarters.

    w = sigmoid(W_2 PReLU(W_1 u)) in (0, 1),     u = DW(quarters(x)) + mean(x)

    DW is a depthwise 2x2 convolution; the hidden layer has an eighth of the channels.
    """

    def __init__(self, channels: int):
        """Build the attention for so many ``channels``, at least 8."""
        super().__init__()
        self.gather = conv(channels, channels, 2, groups=channels)
        self.weigh = nn.Sequential(
            nn.Linear(channels, channels // 8, bias=False),
            nn.PReLU(),
            nn.Linear(channels // 8, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The weighted map w * x, (N, channels, h, w)."""
        u = self.gather(quarters(x)) + x.mean((2, 3), keepdim=True)
        return x * self.weigh(u.flatten(1))[:, :, None, None]


class DecoderUnit(nn.Module):
    """A prediction from the deeper of two maps, attended by both, and a vote for how much it should count."""

    LOW, DEEP = 16, 24
    """Channels to which the shallower and the deeper map are reduced for the attention."""

    def __init__(self, low: int, deep: int, nc: int):
        """Build a unit for ``low`` channels of the shallower map, ``deep`` of the deeper one, and ``nc`` classes."""
        super().__init__()
        both = self.LOW + self.DEEP
        self.low = conv(low, self.LOW, 1)
        self.deep = conv(deep, self.DEEP, 1)
        self.vote = conv(both, 1, 1)
        self.attend = nn.Sequential(conv(both, both, 3, groups=both), norm_act(both), conv(both, nc, 1), nn.Sigmoid())
        self.classify = nn.Sequential(conv(deep, deep, 3, groups=deep), norm_act(deep), conv(deep, nc, 1))

    def forward(self, low: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, low, 2h, 2w) and (N, deep, h, w) -> prediction (N, nc, 2h, 2w) and vote (N, 1)."""
        both = torch.cat([self.low(low), upsample(self.deep(deep), 2)], 1)
        vote = self.vote(both).mean((2, 3))
        return upsample(self.classify(deep), 2) * self.attend(both), vote


def conv(
    channels_in: int, channels: int, size: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Convolution without bias; odd sizes keep the size of the map, a size of 2 goes without padding."""
    padding = dilation * ((size - 1) // 2)
    return nn.Conv2d(channels_in, channels, size, stride, padding, dilation, groups, bias=False)


def norm_act(channels: int) -> nn.Sequential:
    """Batch normalization and a rectifier with a learned slope for each channel."""
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))


def half_size(x: Tensor) -> Tensor:
    """Means over 3x3 with stride 2, padded with zeros."""
    return F.avg_pool2d(x, 3, 2, 1)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear interpolation to ``factor`` times the size."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def quarters(x: Tensor) -> Tensor:
    """Means of the four quarters of a map, (N, C, h, w) -> (N, C, 2, 2); halves of an odd side share its middle.

    This is adaptive average pooling to 2x2, in slices: ONNX has no such operation, and PyTorch exports it for even
    sides only, but 200 pixels are 25 at 1/8.
    """
    h, w = x.shape[2], x.shape[3]
    rows = torch.stack([x[:, :, : (h + 1) // 2].mean(2), x[:, :, h // 2 :].mean(2)], 2)
    return torch.stack([rows[..., : (w + 1) // 2].mean(3), rows[..., w // 2 :].mean(3)], 3)
