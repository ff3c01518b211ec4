"""Box regions and attention on the maps: shared by the terms that separate defects from background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torchvision.ops import box_iou

from dfssd.batches import Batch
from dfssd.distillation.terms.levels import Maps, rows

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


@dataclass(frozen=True)
class Axes:
    """The cells of several levels, as constants on one device. Axes are numbered: x of each level, then y of each.

    Attributes:
        sizes: Cells of each axis.
        lengths: (2, L) the same: columns of each level, rows of each level.
        cells: (X + Y,) number of each cell on its axis, axis after axis; X columns, Y rows.
        axis: (X + Y,) axis of each cell.
        level: (A,) level of each place, level after level, row after row.
        members: (A, L) 1 where a place belongs to a level.
    """

    sizes: tuple[int, ...]
    lengths: Tensor
    cells: Tensor
    axis: Tensor
    level: Tensor
    members: Tensor

    def lines(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Values of all cells, (..., X + Y), as those of rows and columns, (..., H) and (..., W), level by level."""
        parts = values.split(self.sizes, -1)
        count = len(parts) // 2
        return list(zip(parts[count:], parts[:count], strict=True))


@lru_cache(maxsize=64)
def axes(levels: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> Axes:
    """The cells of levels, each (height, width)."""
    sizes = (*(w for _, w in levels), *(h for h, _ in levels))
    places = torch.tensor([h * w for h, w in levels])
    number = torch.arange(len(levels))
    level = number.repeat_interleave(places)
    return Axes(
        sizes=sizes,
        lengths=torch.tensor(sizes, dtype=dtype).view(2, -1).to(device),
        cells=torch.cat([torch.arange(size, dtype=dtype) for size in sizes]).to(device),
        axis=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device),
        level=level.to(device),
        members=(level[:, None] == number).to(device, dtype),
    )


def box_masks(batch: Batch, n: int, levels: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Weights of the foreground and of the background cells (FGD, arXiv:2111.11837, equations 2 to 4).

    A box covers the cells from floor(x1 W) to ceil(x2 W) and likewise in y, both included, as far as they are on the
    map. A foreground cell weighs 1 / (number of cells of its box), that of the smallest one where boxes overlap, so
    small defects count as much as large ones. A background cell weighs 1 / (number of background cells of its image);
    cells covered by an ignore box of the batch are neither.

    Args:
        batch: ``bboxes``, ``batch_idx`` and, if there are any, ``ignore_bboxes`` and ``ignore_batch_idx``.
        n: Images in the batch.
        levels: (height, width) of each level [cells].

    Returns:
        Foreground and background weights, (n, A) both, level after level, row after row, >= 0; all zero for what an
        image does not have.
    """
    boxes, image = corners(batch)
    here = axes(tuple(levels), boxes.dtype, boxes.device)
    low = (boxes[:, :2, None] * here.lengths).floor_().clamp_(min=0)  # (K, axis, level)
    high = torch.minimum((boxes[:, 2:, None] * here.lengths).ceil_(), here.lengths - 1)
    share = (high - low + 1).clamp_(min=0).prod(1).clamp_(min=1).reciprocal_()
    low, high = (ends.flatten(1).index_select(1, here.axis) for ends in (low, high))
    hits = (here.cells >= low) & (here.cells <= high)
    foreground = share.new_zeros(n, len(here.level))
    start = 0
    for level, (y, x) in enumerate(here.lines(hits)):
        covered = ((x * share[:, level, None])[:, None, :] * y[:, :, None]).flatten(1)
        part = foreground[:, start : (start := start + covered.shape[1])]
        part.scatter_reduce_(0, image[:, None].expand_as(covered), covered, "amax")
    background = foreground == 0
    if len(batch.get("ignore_bboxes", ())):
        ignored = batch.get("ignored")
        if not isinstance(ignored, Tensor):
            ignored = ignored_places(batch, n, here)
        background = background & ~ignored
    free = background.to(share.dtype)
    counts = (free @ here.members).clamp_(min=1).reciprocal_()
    return foreground, free.mul_(counts.index_select(1, here.level))


def ignored_places(batch: Batch, n: int, here: Axes) -> Tensor:
    """Places whose middle lies in an ignore box of their image, (n, A) bool."""
    return places_inside(batch["ignore_bboxes"], batch["ignore_batch_idx"], n, here)


def places_inside(boxes: Tensor, image: Tensor, n: int, here: Axes) -> Tensor:
    """Places whose middle lies in a box (K, 4), xywh, shares of the image, of their ``image`` (K,): (n, A) bool.

    Rows and columns are hit independently of each other, so no table of boxes times places is built.
    """
    boxes, image = boxes.to(here.lengths.dtype), image.long()
    middles = (here.cells + 0.5) / here.lengths.flatten().index_select(0, here.axis)
    half = boxes[:, 2:] / 2
    ends = torch.stack([boxes[:, :2] - half, boxes[:, :2] + half])[..., None].expand(-1, -1, -1, len(here.sizes) // 2)
    low, high = ends.flatten(2).index_select(2, here.axis).unbind()
    hits = ((middles >= low) & (middles <= high)).to(boxes.dtype)
    own = (torch.arange(n, device=image.device)[:, None] == image).to(boxes.dtype)  # (n, K)
    parts = [((own[:, None, :] * y.T) @ x).flatten(1) for y, x in here.lines(hits)]
    return torch.cat(parts, 1) > 0


def apart_from_new(batch: Batch, n: int, levels: Sequence[tuple[int, int]], known: int) -> Tensor:
    """Anchors whose point lies in no box of a new class.

    In these boxes the labels say what is to be learned, and the teacher, which does not know these defects, may take
    them for others.

    Args:
        batch: ``cls``, ``bboxes`` and ``batch_idx``.
        n: Images in the batch.
        levels: (height, width) of each level [cells].
        known: Number of classes that the teacher knows; those from there on are new.

    Returns:
        (n, A) bool.
    """
    new = batch["cls"].flatten() >= known
    boxes = batch["bboxes"].float()[new]
    return ~places_inside(boxes, batch["batch_idx"][new], n, axes(tuple(levels), boxes.dtype, boxes.device))


def attention_shares(maps: Sequence[Tensor], temperature: float) -> tuple[Maps, Maps]:
    """Shares of the attention that places and channels get.

        p = softmax_a(mean_c |x| / T),     q = softmax_c(mean_a |x| / T)

    Args:
        maps: Maps x of each level, (N, A, C) with A places, fp32 or fp64.
        temperature: T.

    Returns:
        Shares p of the places (N, A) and q of the channels (N, C), both with sum 1.
    """
    sizes = torch._foreach_abs(list(maps))
    both = Maps([*(x.mean(2) for x in sizes), *(x.mean(1) for x in sizes)])
    both *= 1 / temperature
    shares = [x.softmax(1) for x in both]
    return Maps(shares[: len(sizes)]), Maps(shares[len(sizes) :])


def attention_shares_back(
    maps: Sequence[Tensor], shares: tuple[Maps, Maps], gradients: tuple[Maps, Maps], temperature: float
) -> Maps:
    """Gradients for the shares of :func:`attention_shares` -> those for the maps.

    (softmax'(p, dp) / C + softmax'(q, dq) / A) sign(x) / T
    """
    both = Maps(
        torch.ops.aten._softmax_backward_data(g, x, 1, x.dtype)
        for gs, xs in zip(gradients, shares, strict=True)
        for g, x in zip(gs, xs, strict=True)
    )
    both *= [1 / (temperature * x.shape[axis]) for axis in (2, 1) for x in maps]
    places, channels = both[: len(maps)], both[len(maps) :]
    out = Maps(p[:, :, None] + q[:, None, :] for p, q in zip(places, channels, strict=True))
    out *= Maps(torch._foreach_sign(list(maps)))
    return out


def attention(maps: Sequence[Tensor], temperature: float = 0.5) -> tuple[Maps, Maps]:
    """Where a network looks and with which channels (FGD, arXiv:2111.11837, equations 5 to 8).

        spatial = H W softmax_{h,w}(mean_c |x| / T),     channel = C softmax_c(mean_{h,w} |x| / T)

    Args:
        maps: Maps x of each level, (N, C, H, W), fp32 or fp64.
        temperature: T.

    Returns:
        Spatial attentions (N, H W) and channel attentions (N, C) of each level, all with mean 1.
    """
    spatial, channel = attention_shares([rows(x) for x in maps], temperature)
    spatial *= [x.shape[1] for x in spatial]
    channel *= [x.shape[1] for x in channel]
    return spatial, channel


@lru_cache(maxsize=64)
def anchor_boxes(levels: tuple[tuple[int, int], ...], device: torch.device | str = "cpu") -> Tensor:
    """Squares around the anchor points, (A, 4) corners as shares of the image, level after level, row after row."""
    squares = []
    for height, width in levels:
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height,
            (torch.arange(width) + 0.5) / width,
            indexing="ij",
        )
        center = torch.stack([x, y], -1).view(-1, 2)
        half = center.new_tensor([ANCHOR_CELLS / width / 2, ANCHOR_CELLS / height / 2])
        squares.append(torch.cat([center - half, center + half], 1))
    return torch.cat(squares).to(device)


@dataclass(frozen=True)
class AnchorMatch:
    """Which anchors stand for which box, by the rule of ATSS (arXiv:1912.02424).

    Attributes:
        anchors: (A, 4) squares of the anchors.
        distance: (M, A) from the center of a box to the middle of a square, as shares of the image.
        iou: (M, A) overlap of boxes and squares.
        threshold: (M, 1) mean + standard deviation of the overlaps of the candidates of each box.
        positive: (M, A) bool: candidates above the threshold whose point lies in the box.
        best: (M, A) bool: of each box, the one candidate in it with the largest overlap; without one in it, of all.
    """

    anchors: Tensor
    distance: Tensor
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
    anchors = anchor_boxes(tuple(levels), boxes.device)
    points = (anchors[:, :2] + anchors[:, 2:]) / 2
    far = torch.linalg.vector_norm((boxes[:, None, :2] + boxes[:, None, 2:]) / 2 - points, dim=2)
    nearest, start = [], 0
    for part in far.split([h * w for h, w in levels], 1):
        nearest.append(part.topk(min(CANDIDATES, part.shape[1]), largest=False).indices + start)
        start += part.shape[1]
    candidates = torch.cat(nearest, 1).sort(1).values  # (M, 9 of each level); of equal ones, the first is the best
    count = candidates.shape[1]
    iou = box_iou(boxes, anchors)
    known = iou.gather(1, candidates)
    average = known.sum(1, keepdim=True) / count
    spread = ((known - average).square().sum(1, keepdim=True) / max(1, count - 1)).sqrt()
    threshold = average + spread
    points = points[candidates]
    inside = ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(-1)
    positive, best = (torch.zeros_like(iou, dtype=torch.bool) for _ in range(2))
    positive.scatter_(1, candidates, (known >= threshold) & inside)
    if len(boxes):
        rank = (known + inside.to(known.dtype)).argmax(1, keepdim=True)
        best.scatter_(1, candidates.gather(1, rank), True)
    return AnchorMatch(anchors, far, iou, threshold, positive, best)


def in_images(hits: Tensor, image: Tensor, n: int) -> Tensor:
    """Anchors that are hit for any box of an image: (M, A) bool and (M,) image numbers -> (n, A) bool."""
    found = torch.zeros(n, hits.shape[1], device=hits.device)
    return found.index_add_(0, image, hits.float()) > 0
