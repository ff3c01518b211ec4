"""Relations between the defects of an image, for :class:`dfssd.distillation.terms.drd.InstanceRelation`.

The boxes of a batch stand in a table of images and columns, as many columns as the most crowded image may have boxes.
So all images, levels, and both networks take the same way at once, and no size depends on a value on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfssd.distillation.terms.base import EPSILON, check_same_maps, exact, no_autocast, standardized
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.levels import Maps, as_maps, rows
from dfssd.distillation.terms.regions import attention_shares, attention_shares_back, axes

MOST_BOXES = 64
"""Defects per image that take part, the largest ones; the graph grows with their square."""

ROI = 6
"""Cells per side of the patch that is cut out for each box."""

APART = -1e30
"""Similarity to a column without box; finite, since an image without any box has no other columns."""


Lines = tuple[Tensor, Tensor]
"""Weights of the rows of a map, and of its columns."""


def table(boxes: Tensor, image: Tensor, n: int, most: int = MOST_BOXES) -> tuple[Tensor, Tensor]:
    """Boxes by image, at most ``most`` of each, the largest ones.

    Args:
        boxes: (K, 4) corners.
        image: (K,) image of each, in any order.
        n: Images.
        most: Boxes to keep.

    Returns:
        (n, M, 4) boxes, with M = min(K, most), and (n, M) bool, where there is one; the others are 0.
    """
    if len(boxes) > most:
        sides = boxes[:, 2:] - boxes[:, :2]
        by_size = (sides[:, 0] * sides[:, 1]).argsort(descending=True, stable=True)
        boxes, image = boxes.index_select(0, by_size), image.index_select(0, by_size)
    image, order = image.sort(stable=True)
    columns = min(len(boxes), most)
    rank = torch.arange(len(boxes), device=boxes.device) - torch.searchsorted(image, image)
    places = image * (columns + 1) + rank.clamp_(max=columns)  # the last column takes what is left over
    rows = boxes.new_zeros(n * (columns + 1), 5)
    rows.index_copy_(0, places, torch.nn.functional.pad(boxes.index_select(0, order), (0, 1), value=1.0))
    kept = rows.view(n, columns + 1, 5)[:, :columns]
    return kept[..., :4], kept[..., 4] > 0


def samples(boxes: Tensor, levels: Sequence[tuple[int, int]]) -> list[Lines]:
    """Weights with which rows and columns of cells enter the :data:`ROI` bins of each box.

    Two bilinear samples per bin and direction; a cell's value lies at its middle. A sample more than a cell outside the
    map counts 0.

    Args:
        boxes: (N, M, 4) corners as shares of the image.
        levels: (height, width) of each level.

    Returns:
        (N, M, ROI, H) and (N, M, ROI, W) for each level.
    """
    here = axes(tuple(levels), boxes.dtype, boxes.device)
    n, m, _ = boxes.shape
    places = (torch.arange(2 * ROI, dtype=boxes.dtype, device=boxes.device)[:, None] + 0.5) / (2 * ROI)
    low = boxes[..., :2, None] * here.lengths - 0.5  # (N, M, axis, level)
    size = (boxes[..., 2:] - boxes[..., :2])[..., None] * here.lengths
    at = low.flatten(2)[:, :, None] + size.flatten(2)[:, :, None] * places  # (N, M, 2 ROI, axes)
    lengths = here.lengths.flatten()
    inside = (at >= -1) & (at <= lengths)
    at = torch.where(inside, torch.minimum(at.clamp_(min=0), lengths - 1), -2.0)
    near = at.index_select(3, here.axis).sub_(here.cells).abs_().neg_().add_(1).clamp_(min=0)
    return here.lines(near.view(n, m, ROI, 2, -1).mean(3))


def patches(x: Tensor, lines: Lines) -> Tensor:
    """RoIAlign (arXiv:1703.06870) of maps with one channel, two samples per bin and direction.

    Boxes have sides along the axes, so a patch is a product of matrices. torchvision's operator gives the same values,
    but on CUDA its backward pass is not deterministic, and where determinism is requested, as Ultralytics does, it is
    compiled in a way that allows one backward pass only; measuring gradients needs several.

    Args:
        x: Maps of each image, (N, T, H, W).
        lines: (N, M, ROI, H) and (N, M, ROI, W), from :func:`samples`.

    Returns:
        (T, N, M, ROI, ROI); zeros where a box is more than a cell outside the map.
    """
    n, maps, h, w = x.shape
    y, z = lines
    m = y.shape[1]
    along = torch.bmm(y.reshape(n, m * ROI, h), x.transpose(1, 2).reshape(n, h, maps * w))
    out = torch.bmm(along.view(n * m, ROI * maps, w), z.reshape(n * m, ROI, w).transpose(1, 2))
    return out.view(n, m, ROI, maps, ROI).permute(3, 0, 1, 2, 4)


def patches_back(gradient: Tensor, lines: Lines) -> Tensor:
    """Gradient for the patches of one map per image, (N, M, ROI, ROI) -> that for the maps, (N, 1, H, W)."""
    y, z = lines
    n, m, _, h = y.shape
    w = z.shape[3]
    along = torch.bmm(gradient.reshape(n * m, ROI, ROI), z.reshape(n * m, ROI, w)).view(n, m * ROI, w)
    return torch.bmm(y.reshape(n, m * ROI, h).transpose(1, 2), along)[:, None]


def reason(vectors: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """Each instance plus the attention-weighted sum of those of its image.

        H = V + P V,     P = softmax_j(v_i v_j / sqrt(d))

    Args:
        vectors: V, (N, M, d).
        apart: (N, 1, M), added to the similarities: 0, or :data:`APART` for a column without instance.

    Returns:
        H, (N, M, d), and P, (N, M, M); a single instance of an image gives 2 v.
    """
    similarity = torch.baddbmm(
        apart.expand(-1, vectors.shape[1], -1), vectors, vectors.transpose(1, 2), alpha=vectors.shape[2] ** -0.5
    )
    weights = similarity.softmax(2)
    return torch.baddbmm(vectors, weights, vectors), weights


def reason_back(gradient: Tensor, vectors: Tensor, weights: Tensor) -> Tensor:
    """Gradient for H of :func:`reason`, (N, M, d) -> that for V."""
    of_weights = torch.bmm(gradient, vectors.transpose(1, 2))
    similar = torch.ops.aten._softmax_backward_data(of_weights, weights, 2, weights.dtype)
    through = torch.baddbmm(gradient, weights.transpose(1, 2), gradient)
    return through.baddbmm_(similar + similar.transpose(1, 2), vectors, alpha=vectors.shape[2] ** -0.5)


@dataclass
class Attended:
    """The maps of student and teacher, weighted by their own attentions: :func:`attended`.

    Attributes:
        maps: E S of each level, (N, 2, H, W).
        to_own: Gradients for the student's maps, (N, 1, H, W) each -> those for what they were made of, (N, C, H, W).
    """

    maps: Maps
    to_own: Callable[[Sequence[Tensor]], Maps]


def attended(students: Sequence[Tensor], teachers: Sequence[Tensor], temperature: float) -> Attended:
    """E S with E = mean_c(x A), and the attentions S (places) and A (channels) of each map, with mean 1.

        S = H W p,  p = softmax_{h,w}(mean_c |x| / T),     A = C q,  q = softmax_c(mean_{h,w} |x| / T)

    Args:
        students: Maps x of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher.
        temperature: T.
    """
    n = len(students[0])
    both = Maps(torch.cat([rows(s), rows(t)]) for s, t in zip(students, teachers, strict=True))  # (2 N, H W, C)
    places = [x.shape[1] for x in both]
    spatial, channel = attention_shares(both, temperature)
    mean = Maps(torch.bmm(x, q[:, :, None])[:, :, 0] for x, q in zip(both, channel, strict=True))
    mean *= places
    maps = mean * spatial

    def to_own(gradients: Sequence[Tensor]) -> Maps:
        own, p, q, e = (Maps(x[:n] for x in maps) for maps in (both, spatial, channel, mean))
        outer = Maps(g.reshape(n, -1) for g in gradients)
        of_places, of_mean = outer * e, outer * p
        of_mean *= places
        of_channels = Maps(torch.bmm(g[:, None], x)[:, 0] for g, x in zip(of_mean, own, strict=True))
        out = attention_shares_back(own, (p, q), (of_places, of_channels), temperature)
        for x, a, g in zip(out, q, of_mean, strict=True):
            x.baddbmm_(g[:, :, None], a[:, None])
        return Maps(as_maps(x, *s.shape[2:]) for x, s in zip(out, students, strict=True))

    pairs = (x.view(2, n, *s.shape[2:]).transpose(0, 1) for x, s in zip(maps, students, strict=True))
    return Attended(Maps(pairs), to_own)


def instance_relation(
    students: Sequence[Tensor], teachers: Sequence[Tensor], boxes: Tensor, image: Tensor, temperature: float = 0.5
) -> Tensor:
    """mean((H(V_s) - H(V_t))^2) over the boxes of all images, mean over the levels.

    An instance is the patch of the attended map inside its box, standardized, with the map's own attentions S (places)
    and A (channels), and H of :func:`reason`::

        E = mean_c(x S A),   v = LayerNorm(RoIAlign(BN(E), 6 x 6))

    Both normalizations are without learned scale; the first lets networks of different scale be compared, the second
    removes the brightness of a defect. The value does not depend on the order of the boxes, nor on their number. Of an
    image with more than :data:`MOST_BOXES` boxes, the largest ones take part.

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.
        boxes: (K, 4) corners as shares of the image.
        image: (K,) image of each box.
        temperature: Of the attention.

    Returns:
        Scalar >= 0, fp32 (fp64 for fp64 inputs); 0 without boxes.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)

    def compute(*own: Tensor) -> tuple[Tensor, Maps]:
        levels = [(x.shape[2], x.shape[3]) for x in own]
        kept, there = table(boxes.to(own[0].dtype), image, len(own[0]))
        n, m = there.shape
        lines = samples(kept, levels)
        seen = attended(own, theirs, temperature)
        normal, to_seen = zip(*(standardized(x) for x in seen.maps))
        cut = torch.stack([patches(x, line) for x, line in zip(normal, lines)], 1)
        cut = cut.view(2 * len(own) * n, m, ROI * ROI)  # the student in all levels and images, then the teacher
        vectors, center, scale = torch.native_layer_norm(cut, cut.shape[2:], None, None, EPSILON)
        apart = torch.where(there, 0.0, APART).to(cut.dtype).expand(2 * len(own), n, m).reshape(-1, 1, m)
        reasoned, weights = reason(vectors, apart)
        half = len(own) * n
        gap = (reasoned[:half] - reasoned[half:]).view(len(own), -1, ROI * ROI)
        counted = there.to(cut.dtype).view(-1, 1)
        gap *= counted
        share = (counted.sum() * (ROI * ROI * len(own))).reciprocal_()
        value = torch.dot(gap.view(-1), gap.view(-1)) * share
        gap *= share * 2
        gradient = reason_back(gap.view(half, m, -1), vectors[:half], weights[:half])
        gradient = torch.ops.aten.native_layer_norm_backward(
            gradient, cut[:half], cut.shape[2:], center[:half], scale[:half], None, None, [True, False, False]
        )[0]
        parts = gradient.view(len(own), n, m, ROI, ROI).unbind()
        maps = [back(patches_back(part, line)) for back, part, line in zip(to_seen, parts, lines)]
        return value, seen.to_own(maps)

    with no_autocast(students[0]):
        inputs = exact(*students)
        if not len(boxes):
            return torch.stack([x.sum() for x in inputs]).sum() * 0.0
        theirs = exact(*teachers)
        return closed_form(compute, inputs)
