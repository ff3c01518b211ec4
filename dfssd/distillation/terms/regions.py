"""Box regions and attention on the maps: shared by the terms that separate defects from background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dfssd.batches import Batch
from dfssd.distillation.semi_loss import ignored_anchors
from dfssd.distillation.terms.base import exact

ANCHOR_CELLS = 5.0
"""Side of the square that stands for an anchor point [cells of its level], as where ATSS is used on YOLO heads."""

CANDIDATES = 9
"""Anchors of each level, those next to the center of a box, whose overlap with it sets the threshold of the box."""


def corners(batch: Batch) -> tuple[Tensor, Tensor]:
    """The boxes of a batch as corners, with the image of each.

    Returns:
        (M, 4) x1, y1, x2, y2 as shares of the image, fp32, and (M,) image numbers.
    """
    boxes = batch["bboxes"].float().reshape(-1, 4)
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([center - half, center + half], 1), batch["batch_idx"].long().reshape(-1)


def box_masks(batch: Batch, n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Weights of the foreground and of the background cells of one level (FGD, arXiv:2111.11837, equations 2 to 4).

    A box covers the cells from floor(x1 W) to ceil(x2 W) and likewise in y, both included, as far as they are on the
    map. A foreground cell weighs 1 / (number of cells of its box), that of the smallest one where boxes overlap, so
    small defects count as much as large ones. A background cell weighs 1 / (number of background cells of its image);
    cells covered by an ignore box of the batch are neither.

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


def anchor_boxes(levels: Sequence[tuple[int, int]], device: torch.device | str = "cpu") -> Tensor:
    """Squares around the anchor points, (A, 4) corners as shares of the image, level after level, row after row."""
    squares = []
    for height, width in levels:
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) / height,
            (torch.arange(width, device=device) + 0.5) / width,
            indexing="ij",
        )
        center = torch.stack([x, y], -1).view(-1, 2)
        half = center.new_tensor([ANCHOR_CELLS / width / 2, ANCHOR_CELLS / height / 2])
        squares.append(torch.cat([center - half, center + half], 1))
    return torch.cat(squares)


@dataclass(frozen=True)
class AnchorMatch:
    """Which anchors stand for which box, by the rule of ATSS (arXiv:1912.02424).

    Attributes:
        anchors: (A, 4) squares of the anchors.
        iou: (M, A) overlap of boxes and squares.
        threshold: (M, 1) mean + standard deviation of the overlaps of the candidates of each box.
        positive: (M, A) bool: candidates above the threshold whose point lies in the box.
        best: (M, A) bool: of each box, the one candidate in it with the largest overlap; without one in it, of all.
    """

    anchors: Tensor
    iou: Tensor
    threshold: Tensor
    positive: Tensor
    best: Tensor


def match_anchors(boxes: Tensor, levels: Sequence[tuple[int, int]]) -> AnchorMatch:
    """Match boxes and anchors; candidates are the :data:`CANDIDATES` anchors of each level next to the box's center.

    Args:
        boxes: (M, 4) corners as shares of the image.
        levels: (height, width) of each level [cells].
    """
    anchors = anchor_boxes(levels, boxes.device)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    far = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, points)
    candidate = torch.zeros_like(far, dtype=torch.bool)
    start = 0
    for height, width in levels:
        near = far[:, start : start + height * width].topk(min(CANDIDATES, height * width), largest=False).indices
        candidate.scatter_(1, near + start, True)
        start += height * width
    iou = box_iou(boxes, anchors)
    count = candidate.sum(1, keepdim=True)
    average = (iou * candidate).sum(1, keepdim=True) / count
    spread = (((iou - average) * candidate).square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    inside = ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(-1)
    rank = iou + 2.0 * candidate + 1.0 * (candidate & inside)
    best = torch.zeros_like(candidate)
    if len(boxes):
        best.scatter_(1, rank.argmax(1, keepdim=True), True)
    threshold = average + spread
    return AnchorMatch(anchors, iou, threshold, candidate & (iou >= threshold) & inside, best)


def in_images(hits: Tensor, image: Tensor, n: int) -> Tensor:
    """Anchors that are hit for any box of an image: (M, A) bool and (M,) image numbers -> (n, A) bool."""
    found = torch.zeros(n, hits.shape[1], device=hits.device)
    return found.index_add_(0, image, hits.float()) > 0
