"""The anchors of a detection head for images of one size, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A anchors, level after level, row after row.

    Attributes:
        levels: (height, width) of each level [cells].
        points: (A, 2) x, y of each anchor [cells of its level].
        strides: (A, 1) size of the cells [px].
        centers: (A, 2) x, y of each anchor [px].
        corners: (4, A) its center twice [px], and ``reach`` (4, A): the stride, negative for left and top. So a box is
            ``corners + reach * distances``, xyxy [px].
        size: (4,) width, height, width, height of the images [px].
        rows: y of the rows of all levels, and ``columns``: x of the columns, relative to the image.
    """

    levels: tuple[tuple[int, int], ...]
    points: Tensor
    strides: Tensor
    centers: Tensor
    corners: Tensor
    reach: Tensor
    size: Tensor
    rows: Tensor
    columns: Tensor

    def inside(self, low: Tensor, high: Tensor) -> Tensor:
        """Which anchors lie inside a box of their image.

        The anchors of a level form a grid, so "inside" is the product of "inside the columns" and "inside the rows": no
        table of boxes times anchors is ever built, which would take gigabytes for large images.

        Args:
            low: (N, K, 2) lowest x, y of each box, relative to the image.
            high: (N, K, 2) highest x, y.

        Returns:
            (N, A) bool.
        """
        (x_low, y_low), (x_high, y_high) = low[..., None, :].unbind(-1), high[..., None, :].unbind(-1)
        in_rows = ((self.rows >= y_low) & (self.rows <= y_high)).float().transpose(1, 2)  # (N, rows, K)
        in_columns = ((self.columns >= x_low) & (self.columns <= x_high)).float()
        heights, widths = zip(*self.levels, strict=True)
        parts = zip(in_rows.split(heights, 1), in_columns.split(widths, 2), strict=True)
        return torch.cat([torch.bmm(rows, columns).flatten(1) for rows, columns in parts], 1) > 0


@lru_cache(maxsize=64)
def grid(levels: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device) -> Grid:
    """The anchors of levels with these sizes [cells] and strides [px]."""
    points, sizes, rows, columns = [], [], [], []
    for (height, width), stride in zip(levels, strides, strict=True):
        y, x = (torch.arange(cells, dtype=torch.float32) + 0.5 for cells in (height, width))
        points.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2))
        sizes.append(torch.full((height * width, 1), float(stride)))
        rows.append(y / height)
        columns.append(x / width)
    point, size = torch.cat(points), torch.cat(sizes)
    centers = point * size
    tensors = {
        "points": point,
        "strides": size,
        "centers": centers,
        "corners": torch.cat([centers, centers], 1).T.contiguous(),
        "reach": torch.cat([-size, -size, size, size], 1).T.contiguous(),
        "size": torch.tensor([levels[0][1], levels[0][0]] * 2) * float(strides[0]),
        "rows": torch.cat(rows),
        "columns": torch.cat(columns),
    }
    return Grid(tuple(levels), **{name: value.to(device) for name, value in tensors.items()})


@lru_cache(maxsize=16)
def bin_values(bins: int, device: torch.device) -> Tensor:
    """Distances that the bins of a box distribution stand for, (bins,) [cells]."""
    return torch.arange(bins, dtype=torch.float32, device=device)
