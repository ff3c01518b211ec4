"""Small numbers to the device in one transfer, tables of pixel values, and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**22
"""Pixels that an operation works on at a time. The conversions of colors need up to 80 bytes a pixel: 340 MB."""


def to_device(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Copy arrays to a device in one transfer that the host does not wait for.

    Returns:
        A tensor for each array, with its shape and type. They share one storage.
    """
    starts = [0, *accumulate(-(-a.nbytes // 8) * 8 for a in arrays)]
    packed = np.zeros(starts[-1], np.uint8)
    for a, start in zip(arrays, starts, strict=False):
        packed[start : start + a.nbytes] = np.frombuffer(a.tobytes(), np.uint8)
    whole = torch.from_numpy(packed)
    if device.type == "cuda":
        whole = whole.pin_memory().to(device, non_blocking=True)
    return [
        whole[start : start + a.nbytes].view(_torch_type(a.dtype)).view(a.shape)
        for a, start in zip(arrays, starts, strict=False)
    ]


def constants(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Copy arrays that are kept for later calls to a device, and wait: whichever stream uses them finds them there."""
    return {name: torch.from_numpy(np.ascontiguousarray(a)).to(device) for name, a in arrays.items()}


@lru_cache(maxsize=16)
def _torch_type(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]`` for a table (n,) and int32 indices of any shape."""
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def apply_tables(pixels: Tensor, tables: Tensor) -> Tensor:
    """Replace each value by its entry in the table of its image and channel.

    Args:
        pixels: (B, C, H, W), any integer type, values 0 to 255.
        tables: (B, C, 256), or (B, 1, 256) for one table for all channels of an image.

    Returns:
        (B, C, H, W) in the type of the tables.
    """
    b, c, n = tables.shape
    first = torch.arange(0, b * c * n, n, dtype=torch.int32, device=pixels.device)
    return look_up(tables.reshape(-1), pixels + first.view(b, c, 1, 1))


def in_chunks(function: Callable[..., Tensor], images: Tensor, *values: Tensor, pixels: int = CHUNK) -> Tensor:
    """``function(images, *values)`` with a bounded number of pixels at a time.

    Args:
        function: Treats images one by one.
        images: (B, C, H, W).
        *values: (B, ...): what belongs to each image.
        pixels: The bound; one image may be larger.
    """
    step = max(1, pixels // max(1, images.shape[-2] * images.shape[-1]))
    if step >= len(images):
        return function(images, *values)
    parts = zip(images.split(step), *(v.split(step) for v in values), strict=True)
    return torch.cat([function(*part) for part in parts])
