"""Blurs of uint8 images as OpenCV computes them, for a batch with one kernel per image, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfssd.loading.pixels import CHUNK, in_chunks


def gaussian_kernel(sigma: float, size: int) -> np.ndarray:
    """(size, size) float32 with sum 1: ``exp(-(x^2 + y^2) / (2 sigma^2))``, ``sigma`` in pixels, ``size`` odd."""
    x = np.arange(size) - size // 2
    line = np.exp(-0.5 * (x / sigma) ** 2)
    line /= line.sum()
    return np.outer(line, line).astype(np.float32)


def box_kernel(size: int) -> np.ndarray:
    """(size, size) float32 with equal weights."""
    return np.full((size, size), 1 / size**2, np.float32)


def motion_kernel(size: int, angle: float, direction: float, shift: Sequence[float]) -> np.ndarray:
    """The kernel of albumentations' ``MotionBlur``: equal weights on a line of pixels.

    Args:
        size: Odd.
        angle: Of the line [degrees].
        direction: In [-1, 1]; at 0 the line reaches from one side to the other, at +-1 from the center to one side.
        shift: Of the line in x and y, in [-1, 1]: a quarter of the kernel.

    Returns:
        (size, size) float32 with sum 1.
    """
    reach = size // 2
    start, end = -reach * (1 - max(direction, 0)), reach * (1 + min(direction, 0))
    t = np.linspace(start, end, size)
    radians = np.deg2rad(angle)
    x, y = (
        np.clip(np.round(reach + t * d + s * reach / 2), 0, size - 1).astype(int)
        for d, s in zip((np.cos(radians), np.sin(radians)), shift, strict=True)
    )
    kernel = np.zeros((size, size), np.float32)
    kernel[y, x] = 1
    return kernel / kernel.sum()


def same_size(kernels: Sequence[np.ndarray]) -> np.ndarray:
    """Kernels of odd sizes as one array (n, size, size) of the largest size, padded with zeros."""
    size = max(len(k) for k in kernels)
    return np.stack([np.pad(k, (size - len(k)) // 2) for k in kernels])


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """``cv2.filter2D`` with a kernel per image; the border is mirrored.

    Args:
        images: (B, C, H, W) uint8, H and W above half of the kernel.
        kernels: (B, K, K) float32, K odd.

    Returns:
        A new tensor of the same shape and type.
    """
    return in_chunks(_convolve, images, kernels)


def _convolve(images: Tensor, kernels: Tensor) -> Tensor:
    b, c, h, w = images.shape
    side = kernels.shape[-1]
    padded = F.pad(images.float(), (side // 2,) * 4, mode="reflect")
    weight = kernels.unsqueeze(1).expand(b, c, side, side).reshape(b * c, 1, side, side)
    with torch.autocast(images.device.type, enabled=False):
        out = F.conv2d(padded.view(1, b * c, *padded.shape[2:]), weight, groups=b * c)
    return out.view(b, c, h, w).round_().clamp_(0, 255).to(torch.uint8)


def median(images: Tensor, size: int) -> Tensor:
    """``cv2.medianBlur``: the median of ``size x size`` pixels, ``size`` odd; the border is repeated.

    Args:
        images: (B, C, H, W) uint8.
        size: Side of the window [px].

    Returns:
        A new tensor of the same shape and type.
    """
    count_type = torch.uint8 if size**2 < 256 else torch.int32

    def one_chunk(images: Tensor) -> Tensor:
        h, w = images.shape[2:]
        rows, columns = (
            torch.arange(-(size // 2), n + size // 2, device=images.device).clamp_(0, n - 1) for n in (h, w)
        )
        wide = images.index_select(2, rows).index_select(3, columns)
        window = torch.stack([wide[:, :, y : y + h, x : x + w] for y in range(size) for x in range(size)])
        # The largest level that more than half of the pixels reach, bit by bit. A sort would need ten times the memory.
        found = torch.zeros_like(images)
        for bit in (128, 64, 32, 16, 8, 4, 2, 1):
            tried = found + bit
            reached = (window >= tried).view(torch.uint8).sum(0, dtype=count_type)
            found = torch.where(reached > size**2 // 2, tried, found)
        return found

    return in_chunks(one_chunk, images, pixels=CHUNK * 4 // size**2)
