"""Contrast limited adaptive histogram equalization (CLAHE) as OpenCV computes it, for a batch on any device."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dfssd.loading.color import lab_to_rgb, rgb_to_lab
from dfssd.loading.pixels import constants, in_chunks, look_up

LEVELS = 256


def tile_shape(height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a tile [px]. An image that ``grid`` (rows, columns) does not divide is extended first."""
    if height % grid[0] or width % grid[1]:
        # OpenCV extends both sides, also the one that fits, by a whole row of the grid then.
        height, width = height + grid[0] - height % grid[0], width + grid[1] - width % grid[1]
    return height // grid[0], width // grid[1]


def count_limits(clip_limits: np.ndarray, tile: tuple[int, int]) -> np.ndarray:
    """The most pixels of a tile that one gray level may hold: ``clip_limit * pixels / 256``, at least 1, int32."""
    return np.maximum((clip_limits * (tile[0] * tile[1]) / LEVELS).astype(np.int32), 1)


def equalize(images: Tensor, limits: Tensor, grid: tuple[int, int] = (8, 8)) -> Tensor:
    """CLAHE of the lightness of images, colors kept (L of CIELAB), as albumentations does.

    Args:
        images: (B, 3, H, W) uint8, RGB.
        limits: (B,) int32: :func:`count_limits`.
        grid: Rows and columns of tiles.

    Returns:
        A new tensor of the same shape and type.
    """

    def one_chunk(images: Tensor, limits: Tensor) -> Tensor:
        lab = rgb_to_lab(images)
        lab[:, :1] = equalize_levels(lab[:, :1], limits, grid)
        return lab_to_rgb(lab)

    return in_chunks(one_chunk, images, limits)


def equalize_levels(levels: Tensor, limits: Tensor, grid: tuple[int, int]) -> Tensor:
    """CLAHE of gray images: ``cv2.createCLAHE(...).apply``.

    Each tile gets the table of its clipped histogram; a pixel gets the mean of the tables of the four tiles around it,
    weighted by the distance to their centers.

    Args:
        levels: (B, 1, H, W) int32, 0 to 255.
        limits: (B,) int32: :func:`count_limits`.
        grid: Rows and columns of tiles.

    Returns:
        (B, 1, H, W) int32, 0 to 255.
    """
    b, _, h, w = levels.shape
    tile = tile_shape(h, w, grid)
    c = _neighbors((h, w), tile, grid, levels.device)
    tables = _tables(_histograms(levels, c["rows"], c["columns"], tile, grid), limits, tile[0] * tile[1])
    first = torch.arange(0, tables.numel(), grid[0] * grid[1] * LEVELS, dtype=torch.int32, device=levels.device)
    # (B, above or below, left or right, H, W)
    corners = (levels + first.view(b, 1, 1, 1)).unsqueeze(1) + c["tables"]
    values = look_up(tables.reshape(-1), corners)
    # One direction after the other: OpenCV's order of operations decides where .5 goes.
    values = values.mul_(c["across"]).sum(2).mul_(c["along"]).sum(1, keepdim=True)
    return values.round_().int()


def _histograms(levels: Tensor, rows: Tensor, columns: Tensor, tile: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Pixels of each gray level in each tile: (B, rows x columns of the grid, 256) int32."""
    if (len(rows), len(columns)) != levels.shape[2:]:
        levels = levels.index_select(2, rows).index_select(3, columns)
    tiles = (
        levels.view(-1, grid[0], tile[0], grid[1], tile[1]).transpose(2, 3).reshape(len(levels), -1, tile[0] * tile[1])
    )
    counts = torch.zeros(*tiles.shape[:2], LEVELS, dtype=torch.int32, device=levels.device)
    return counts.scatter_add_(2, tiles.long(), torch.ones_like(tiles))


def _tables(counts: Tensor, limits: Tensor, pixels: int) -> Tensor:
    """New levels for the old ones: the cumulated histogram after what is above the limit was spread over all levels.

    Returns:
        (B, tiles, 256) float32, whole numbers.
    """
    kept = torch.minimum(counts, limits.view(-1, 1, 1))
    excess = pixels - kept.sum(2, dtype=torch.int32)
    rest = _rests(counts.device).index_select(0, (excess % LEVELS).reshape(-1)).view(counts.shape)
    kept.add_(rest).add_((excess >> 8).unsqueeze(2))
    return kept.cumsum(2, dtype=torch.int32).mul(float(np.float32((LEVELS - 1) / pixels))).round_()


@lru_cache(maxsize=8)
def _rests(device: torch.device) -> Tensor:
    """How n pixels are spread over 256 levels: one on every (256 // n)-th, from the first on; (n, 256) int32."""
    level, n = np.arange(LEVELS), np.arange(LEVELS)[:, None]
    step = LEVELS // np.maximum(n, 1)
    return constants({"rests": ((level % step == 0) & (level // step < n)).astype(np.int32)}, device)["rests"]


@lru_cache(maxsize=32)
def _neighbors(
    shape: tuple[int, int], tile: tuple[int, int], grid: tuple[int, int], device: torch.device
) -> dict[str, Tensor]:
    """What depends on the shape of an image only.

    Returns:
        ``rows``, ``columns``: those of the image extended to whole tiles, mirrored; ``tables``: (2, 2, H, W) int32,
        where the tables of the four tiles around each pixel begin; ``across``: (2, 1, W), ``along``: (2, H, 1), their
        weights, float32.
    """
    ends, firsts, weights = [], [], []
    for n, side, tiles in zip(shape, tile, grid, strict=True):
        i = np.arange(side * tiles)
        ends.append(np.minimum(i, 2 * (n - 1) - i))
        position = np.arange(n, dtype=np.float32) * np.float32(1 / side) - np.float32(0.5)
        before = np.floor(position)
        firsts.append(np.stack((np.maximum(before, 0), np.minimum(before + 1, tiles - 1))).astype(np.int32))
        weights.append(np.stack((1 - (position - before), position - before)))
    tables = (firsts[0][:, None, :, None] * grid[1] + firsts[1][None, :, None, :]) * LEVELS
    arrays = {
        "rows": ends[0],
        "columns": ends[1],
        "tables": tables.astype(np.int32),
        "across": weights[1][:, None],
        "along": weights[0][:, :, None],
    }
    return constants(arrays, device)
