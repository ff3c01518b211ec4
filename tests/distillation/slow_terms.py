"""The formulas of terms written down plainly, one level at a time, with automatic differentiation.

What the terms compute for all levels at once and with gradients in closed form is compared with these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from dfssd.batches import Batch
from dfssd.distillation.terms.base import standardize
from dfssd.distillation.terms.drd import PixelGraph
from dfssd.distillation.terms.giou import distances
from dfssd.distillation.terms.instances import MOST_BOXES, ROI
from dfssd.distillation.terms.regions import corners


def over_levels(function: Callable[..., Tensor], *lists: Sequence) -> Tensor:
    """Mean of a function over the levels."""
    return torch.stack([function(*level) for level in zip(*lists, strict=True)]).mean()


def attention(x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(N, H, W) and (N, C), both with mean 1."""
    n, c, h, w = x.shape
    spatial = h * w * (x.abs().mean(1).flatten(1) / temperature).softmax(1).view(n, h, w)
    return spatial, c * (x.abs().mean((2, 3)) / temperature).softmax(1)


def box_masks(batch: Batch, n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Foreground and background weights by a loop over the boxes."""
    boxes, image = corners(batch)
    size = torch.tensor([width, height])
    foreground = torch.zeros(n, height, width)
    for box, i in zip(boxes, image.tolist(), strict=True):
        x1, y1 = (box[:2] * size).floor().clamp(min=0).long().tolist()
        x2, y2 = torch.minimum((box[2:] * size).ceil(), size - 1).long().tolist()
        if x2 >= x1 and y2 >= y1:
            part = foreground[i, y1 : y2 + 1, x1 : x2 + 1]
            part.clamp_(min=1 / ((x2 - x1 + 1) * (y2 - y1 + 1)))
    background = foreground == 0
    for (x, y, w, h), i in zip(batch["ignore_bboxes"], batch["ignore_batch_idx"].long().tolist(), strict=True):
        columns, rows = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
        hit = (columns >= x - w / 2) & (columns <= x + w / 2)
        background[i] &= ~(hit & ((rows >= y - h / 2) & (rows <= y + h / 2))[:, None])
    return foreground, background / background.sum((1, 2), keepdim=True).clamp(min=1)


def decoupled(student: Tensor, teacher: Tensor, batch: Batch, background: float, temperature: float) -> Tensor:
    """DED of one level."""
    n, c, h, w = student.shape
    spatial, channel = attention(teacher, temperature)
    error = ((student - teacher).square() * channel[:, :, None, None]).sum(1) / c * spatial
    foreground, defectless = box_masks(batch, n, h, w)
    boxes = max(1, len(batch["batch_idx"]))
    return (foreground * error).sum() / boxes + background * (defectless * error).sum() / n


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity by a plain convolution."""
    c = x.shape[1]
    line = torch.arange(-5, 6, dtype=x.dtype)
    line = (-(line**2) / (2 * 1.5**2)).exp()
    window = ((line[:, None] * line[None, :]) / line.sum() ** 2).expand(c, 1, 11, 11)

    def blur(z: Tensor) -> Tensor:
        return nn.functional.conv2d(z, window, padding=5, groups=c)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))


def structure(student: Tensor, teacher: Tensor) -> Tensor:
    """SSIM term of one level."""
    return ((1 - ssim(standardize(student), standardize(teacher))) / 2).mean()


def pixel_relation(student: Tensor, teacher: Tensor, graph: PixelGraph) -> Tensor:
    """DRD between the places of one level."""
    return (graph(standardize(student)) - graph(standardize(teacher))).square().mean()


def _samples(low: Tensor, high: Tensor, length: int) -> Tensor:
    places = (torch.arange(2 * ROI, dtype=low.dtype) + 0.5) / (2 * ROI)
    at = low[:, None] + (high - low)[:, None] * places - 0.5
    weights = (1 - (at.clamp(0, length - 1)[..., None] - torch.arange(length, dtype=low.dtype)).abs()).clamp(min=0)
    inside = (at >= -1) & (at <= length)
    return (weights * inside[..., None]).view(len(low), ROI, 2, length).mean(2)


def instances(x: Tensor, boxes: Tensor, image: Tensor, temperature: float) -> Tensor:
    """One vector per box, (K, 36)."""
    h, w = x.shape[2:]
    spatial, channel = attention(x, temperature)
    attended = standardize(((x * channel[:, :, None, None]).mean(1) * spatial)[:, None])[:, 0]
    columns, rows = _samples(boxes[:, 0] * w, boxes[:, 2] * w, w), _samples(boxes[:, 1] * h, boxes[:, 3] * h, h)
    patches = (rows @ attended[image] @ columns.transpose(1, 2)).flatten(1)
    return nn.functional.layer_norm(patches, patches.shape[1:])


def reason(vectors: Tensor, image: Tensor) -> Tensor:
    """Each instance plus the attention-weighted sum of those of its image, by a table of all with all."""
    similarity = vectors @ vectors.T / vectors.shape[1] ** 0.5
    apart = image[:, None] != image[None, :]
    return vectors + similarity.masked_fill(apart, float("-inf")).softmax(1) @ vectors


def largest_per_image(boxes: Tensor, image: Tensor, most: int = MOST_BOXES) -> list[int]:
    """Numbers of the boxes that take part."""
    sides = boxes[:, 2:] - boxes[:, :2]
    area = (sides[:, 0] * sides[:, 1]).tolist()
    kept = []
    for i in set(image.tolist()):
        own = [k for k in range(len(boxes)) if image[k] == i]
        kept += sorted(own, key=lambda k: -area[k])[:most]
    return kept


def instance_relation(student: Tensor, teacher: Tensor, boxes: Tensor, image: Tensor, temperature: float) -> Tensor:
    """DRD between the defects of one level."""
    kept = largest_per_image(boxes, image)
    if not kept:
        return 0.0 * student.sum()
    boxes, image = boxes[kept].to(student.dtype), image[kept]
    own, theirs = (reason(instances(x, boxes, image, temperature), image) for x in (student, teacher))
    return (own - theirs).square().mean()


def align_scale(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's map with the statistics of the teacher's."""
    over = (0, 2, 3)
    ratio = (teacher.var(over, keepdim=True) + 1e-6) / (student.var(over, keepdim=True) + 1e-6)
    return (student - student.mean(over, keepdim=True)) * ratio.sqrt() + teacher.mean(over, keepdim=True)


def giou_response(boxes: Tensor, teacher_boxes: Tensor, teacher_scores: Tensor, reg_max: int) -> Tensor:
    """Distance between decoded boxes."""
    sides = [distances(x, reg_max).transpose(1, 2) for x in (boxes, teacher_boxes)]
    own, theirs = (torch.cat([-d[..., :2], d[..., 2:]], -1) for d in sides)
    weight = teacher_scores.sigmoid().amax(1)
    return (weight * generalized_box_iou_loss(own, theirs)).sum() / weight.sum().clamp(min=max(1, len(boxes)))


def box_kl(student: Tensor, teacher: Tensor, reg_max: int, temperature: float) -> Tensor:
    """KL divergence between box distributions at each anchor, times T^2, mean over the sides; (N, A)."""
    n, _, anchors = student.shape
    logs = [(x.view(n, 4, reg_max, anchors) / temperature).log_softmax(2) for x in (student, teacher)]
    return temperature**2 * (logs[1].exp() * (logs[1] - logs[0])).sum(2).mean(1)


def attention_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Attention part of FGD, one level."""
    pairs = zip(attention(student, temperature), attention(teacher, temperature), strict=True)
    return torch.stack([(s - t).abs().mean() for s, t in pairs]).sum()
