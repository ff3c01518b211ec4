"""Where boxes lie on the maps, and where a network looks: what the terms that tell defect from background share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dfssd.distillation.semi_loss import ignored_anchors
from dfssd.distillation.terms.base import exact


def corners(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The boxes of a batch as corners, with the image of each.

    Returns:
        (M, 4) x1, y1, x2, y2 as shares of the image, fp32, and (M,) image numbers.
    """
    boxes = batch["bboxes"].float().reshape(-1, 4)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1), batch["batch_idx"].long().reshape(-1)


def box_masks(batch: Mapping[str, Any], n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Weights of the foreground and of the background cells of one level (FGD, arXiv:2111.11837, equations 2 to 4).

    A box covers the cells from floor(x1 W) to ceil(x2 W) and likewise in y, both included, as far as they are on the
    map. A foreground cell weighs 1 / (number of cells of its box), that of the smallest one where boxes overlap, so
    small defects count as much as large ones. A background cell weighs 1 / (number of background cells of its image);
    what is covered by an ignore box of the batch is neither.

    Args:
        batch: ``bboxes``, ``batch_idx`` and, if there are any, ``ignore_bboxes`` and ``ignore_batch_idx``.
        n: Images in the batch.
        height: Cells of the map.
        width: The same.

    Returns:
        Foreground and background weights, (n, height, width) both, >= 0; all zero for what an image does not have.
    """
    boxes, image = corners(batch)
    device = boxes.device
    size = torch.tensor([width, height], dtype=torch.float32, device=device)
    low = (boxes[:, :2] * size).floor().clamp(min=0)
    high = torch.minimum((boxes[:, 2:] * size).ceil(), size - 1)
    sides = (high - low + 1).clamp(min=0)
    area = sides[:, 0] * sides[:, 1]
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)
    columns = (x >= low[:, :1]) & (x <= high[:, :1])
    rows = (y >= low[:, 1:]) & (y <= high[:, 1:])
    covered = rows[:, :, None] & columns[:, None, :]
    weight = covered / area.clamp(min=1)[:, None, None]
    index = image[:, None, None].expand_as(weight)
    foreground = weight.new_zeros(n, height, width).scatter_reduce(0, index, weight, "amax")
    background = foreground == 0
    if "ignore_bboxes" in batch:
        known = (batch["ignore_bboxes"], batch["ignore_batch_idx"].long(), n, [(height, width)])
        background &= ~ignored_anchors(*known).view(n, height, width)
    cells = background.sum((1, 2), keepdim=True).clamp(min=1)
    return foreground, background / cells


def attention(x: Tensor, temperature: float = 0.5) -> tuple[Tensor, Tensor]:
    """Where a network looks and with which channels (FGD, arXiv:2111.11837, equations 5 to 8).

        spatial = H W softmax_{h,w}(mean_c |x| / T),     channel = C softmax_c(mean_{h,w} |x| / T)

    Args:
        x: Maps, (N, C, H, W).
        temperature: T.

    Returns:
        Spatial attention (N, H, W) and channel attention (N, C), fp32 (fp64 for fp64 maps), both with mean 1.
    """
    (x,) = exact(x)
    n, c, h, w = x.shape
    size = x.abs()
    spatial = h * w * (size.mean(1).flatten(1) / temperature).softmax(1).view(n, h, w)
    return spatial, c * (size.mean((2, 3)) / temperature).softmax(1)
