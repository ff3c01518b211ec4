"""Views with foreign parts, and what was there before, for every cell of a detector's feature maps.

Everything is computed for a whole batch on its device, with random numbers from one generator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRAINS = (5, 10, 20)
"""Bumps along a side of the image, of which the outlines of foreign parts are made; drawn for each image."""

SHARE = (0.08, 0.3)
"""Smallest and largest share of an image that is foreign."""

STRENGTH = (0.3, 1.0)
"""Smallest and largest opacity of foreign parts: defects may be as faint."""

GAIN = (0.7, 1.3)
"""Smallest and largest factor on the brightness of foreign parts."""

SAMPLED = 4
"""Distance of the pixels [px] from which the threshold of an outline is taken."""

PER_SIDE = 4
"""Parts of a cell in each direction that are told apart."""


def uniform(n: int, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Random numbers (n, 1, 1, 1) from an interval, on the device of the generator."""
    low, high = limits
    return torch.rand((n, 1, 1, 1), generator=generator, device=generator.device) * (high - low) + low


def outlines(n: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Irregular parts of images, of many sizes.

    Smooth noise above a quantile of its own: the grain of the noise sets how large the parts are.

    Args:
        n: Images.
        size: Height and width [px].
        generator: Source of the random numbers, on the device of the images.

    Returns:
        (n, 1, H, W) float32: 1 inside, 0 outside.
    """
    device = generator.device
    kinds = [
        F.interpolate(torch.randn((n, 1, grain, grain), generator=generator, device=device), size, mode="bicubic")
        for grain in GRAINS
    ]
    kind = torch.randint(len(GRAINS), (n,), generator=generator, device=device)
    noise = torch.stack(kinds)[kind, torch.arange(n, device=device)]
    sampled = noise[:, :, ::SAMPLED, ::SAMPLED].flatten(1).sort(1).values
    place = ((1 - uniform(n, SHARE, generator).flatten()) * (sampled.shape[1] - 1)).long()
    limit = sampled.gather(1, place[:, None]).view(n, 1, 1, 1)
    return (noise > limit).float()


def corrupt(images: Tensor, parts: Tensor, generator: torch.Generator) -> Tensor:
    """Images whose ``parts`` show something else: ``x (1 - a m) + y a m``.

    What is shown (y) is another image of the batch or, in about half of the images, another place of the same one,
    perhaps mirrored and brighter or darker; a is its opacity.

    Args:
        images: (N, 3, H, W), 0 to 1.
        parts: (N, 1, H, W), m, of :func:`outlines`.
        generator: Source of the random numbers, on the device of the images.

    Returns:
        A new tensor like ``images``, 0 to 1.
    """
    n, _, height, width = images.shape

    def chance() -> Tensor:
        return uniform(n, (0.0, 1.0), generator) < 0.5

    rows, columns = (
        int(torch.randint(side // 8, side - side // 8, (1,), generator=generator, device=generator.device))
        for side in (height, width)
    )
    other = torch.where(chance(), images.roll((rows, columns), (2, 3)), images.roll(1, 0))
    other = torch.where(chance(), other.flip(3), other) * uniform(n, GAIN, generator)
    opacity = parts * uniform(n, STRENGTH, generator)
    return torch.lerp(images, other, opacity.to(images.dtype)).clamp_(0, 1)


def in_cells(maps: Tensor, stride: int) -> Tensor:
    """Means over the parts of each cell: (N, C, H, W) -> (N, C * PER_SIDE^2, H / stride, W / stride).

    Args:
        maps: H and W are multiples of ``stride``.
        stride: Side of a cell [px], a multiple of :data:`PER_SIDE`.
    """
    return F.pixel_unshuffle(F.avg_pool2d(maps, stride // PER_SIDE), PER_SIDE)


def standardized(images: Tensor) -> Tensor:
    """Gray values with mean 0 and deviation 1 over each image: (N, 3, H, W), 0 to 1 -> (N, 1, H, W).

    A deviation of less than a few gray levels counts as that many: the noise of an even surface must not become the
    signal.
    """
    gray = images.float().mean(1, keepdim=True)
    spread, mean = torch.std_mean(gray, (1, 2, 3), keepdim=True)
    return (gray - mean) / (spread + FAINT)


FAINT = 0.02
"""Deviation of an even surface [share of white]; some five gray levels."""
