"""Small images for the comparisons with OpenCV, and the way between its arrays and batches."""

from __future__ import annotations

import cv2
import numpy as np
import torch


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    """(h, w, 3) uint8, each value by chance."""
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def smooth(h: int, w: int, seed: int = 0) -> np.ndarray:
    """(h, w, 3) uint8 with large colored areas."""
    return cv2.resize(noise(5, 5, seed), (w, h), interpolation=cv2.INTER_CUBIC)


def grays(h: int, w: int, seed: int = 0) -> np.ndarray:
    """(h, w, 3) uint8 without color."""
    return np.repeat(noise(h, w, seed)[..., :1], 3, 2)


def batch(*images: np.ndarray) -> torch.Tensor:
    """Images (h, w, 3) as (B, 3, h, w)."""
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


def arrays(images: torch.Tensor) -> np.ndarray:
    """A batch as (B, h, w, 3)."""
    return images.cpu().numpy().transpose(0, 2, 3, 1)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two uint8 arrays [levels]."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())
