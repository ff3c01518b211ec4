"""DRD: dual relation distillation, of places and of defects, by reasoning on graphs (TKD, TSKD).

The published code redraws the weights of its graphs in every call, uses the boxes of a batch as channels of one graph
(which fails for a single box and mixes images), and in its journal version a line break removes both parts from the
loss. Here the pixel graphs are drawn once and stay (``graphs="resample"`` redraws them), and the instance graph has no
weights: the defects of an image are its nodes, their similarity its edges. Training the graphs by this loss would let
them hide the difference that they are meant to show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.checks import check_choice, check_integer, check_positive
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.base import FeatureTerm, PairShape, check_same_shape, mean, no_autocast, standardize
from dfssd.distillation.terms.regions import attention, corners

MOST_BOXES = 64
"""Defects per image that take part, the largest ones; the graph grows with their square."""

ROI = 6
"""Cells per side of the patch that is cut out for each box."""


class PixelGraph(nn.Module):
    """Global reasoning unit with random, fixed weights (GloRe, arXiv:1811.12814).

    Places are projected onto n nodes, reasoned about there and projected back::

        Z = V(x) B(x)^T / (H W),   Y = W_s ReLU(W_n Z + Z),   G(x) = x + BN(P(Y B(x)))

    with 1x1 convolutions V (to 2n states), B (to n nodes) and P (back to C channels), W_n over nodes, W_s over states.
    The weights are buffers: they are saved and restored, and no optimizer finds them.
    """

    values: Tensor
    bases: Tensor
    over_nodes: Tensor
    over_states: Tensor
    back: Tensor

    def __init__(self, channels: int, nodes: int, generator: torch.Generator):
        """Draw the weights.

        Args:
            channels: C of the maps.
            nodes: n.
            generator: Source of the weights.
        """
        super().__init__()
        states = 2 * nodes
        shapes = {
            "values": (states, channels),
            "bases": (nodes, channels),
            "over_nodes": (nodes, nodes),
            "over_states": (states, states),
            "back": (channels, states),
        }
        for name, (rows, columns) in shapes.items():
            self.register_buffer(name, torch.empty(rows, columns))
        self.draw(generator)

    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights anew, N(0, 1 / inputs), which preserves the variance of the signal."""
        for weight in self.buffers():
            drawn = torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5
            weight.copy_(drawn)

    def forward(self, x: Tensor) -> Tensor:
        """G(x) of maps (N, C, H, W)."""
        values, over_nodes, over_states, back = (
            weight.to(x.dtype) for weight in (self.values, self.over_nodes, self.over_states, self.back)
        )
        places = x.flatten(2)
        bases = self.bases.to(x.dtype) @ places
        nodes = (values @ places) @ bases.transpose(1, 2) / places.shape[2]
        reasoned = over_states @ (nodes @ over_nodes.T + nodes).relu()
        return x + standardize((back @ (reasoned @ bases)).view_as(x))


def pixel_relation(student: Tensor, teacher: Tensor, graph: PixelGraph) -> Tensor:
    """mean((G(F_s) - G(F_t))^2) of the standardized maps, with one graph for both networks.

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.
        graph: G, for C channels.

    Returns:
        Scalar >= 0, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        if not student.numel():
            return student.float().sum()
        return mean((graph(standardize(student)) - graph(standardize(teacher))).square())


def _samples(low: Tensor, high: Tensor, length: int) -> Tensor:
    """Weights with which the cells of one axis enter the :data:`ROI` bins of each box, (K, ROI, length).

    Two bilinear samples per bin; low and high are the ends of the boxes [cells], a cell's value lies at its middle.
    """
    places = (torch.arange(2 * ROI, dtype=low.dtype, device=low.device) + 0.5) / (2 * ROI)
    at = low[:, None] + (high - low)[:, None] * places - 0.5
    cells = torch.arange(length, dtype=low.dtype, device=low.device)
    weights = (1 - (at.clamp(0, length - 1)[..., None] - cells).abs()).clamp(min=0)
    inside = (at >= -1) & (at <= length)
    return (weights * inside[..., None]).view(len(low), ROI, 2, length).mean(2)


def roi_patches(x: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """RoIAlign (arXiv:1703.06870) of maps with one channel, two samples per bin and direction.

    Boxes have sides along the axes, so a patch is a product of matrices. torchvision's operator gives the same values,
    but on CUDA its backward pass is not deterministic, and where determinism is requested, as Ultralytics does, it is
    compiled in a way that allows one backward pass only; measuring gradients needs several.

    Args:
        x: Maps, (N, H, W).
        boxes: (K, 4) corners as shares of the image.
        image: (K,) image of each box.

    Returns:
        (K, 6, 6); zeros where a box is more than a cell outside the map.
    """
    height, width = x.shape[1:]
    boxes = boxes.to(x.dtype)
    columns = _samples(boxes[:, 0] * width, boxes[:, 2] * width, width)
    rows = _samples(boxes[:, 1] * height, boxes[:, 3] * height, height)
    return rows @ x[image] @ columns.transpose(1, 2)


def instances(x: Tensor, boxes: Tensor, image: Tensor, temperature: float = 0.5) -> Tensor:
    """One vector per box: the patch of the attended map inside it, standardized.

        E = mean_c(x S A),   v = LayerNorm(RoIAlign(BN(E), 6 x 6))

    with the map's own attentions S (places) and A (channels). Both normalizations are without learned scale; the first
    lets networks of different scale be compared, the second removes the brightness of a defect.

    Args:
        x: Maps, (N, C, H, W).
        boxes: (K, 4) corners as shares of the image.
        image: (K,) image of each box.
        temperature: Of the attention.

    Returns:
        (K, 36), each with mean 0 and variance 1, or less where a patch is almost uniform; 0 for a box without area.
    """
    spatial, channel = attention(x, temperature)
    attended = torch.einsum("nchw,nc->nhw", x.to(channel.dtype), channel) / x.shape[1] * spatial
    patches = roi_patches(standardize(attended[:, None])[:, 0], boxes, image).flatten(1)
    return nn.functional.layer_norm(patches, patches.shape[1:])


def reason(vectors: Tensor, image: Tensor) -> Tensor:
    """Each instance plus the attention-weighted sum of those of its image.

        H = V + softmax_j(v_i v_j / sqrt(d)) V      (j in the image of i)

    Args:
        vectors: V, (K, d).
        image: (K,) image of each.

    Returns:
        (K, d); a single instance of an image gives 2 v.
    """
    similarity: Tensor = vectors @ vectors.T / vectors.shape[1] ** 0.5
    apart = image[:, None] != image[None, :]
    others = similarity.masked_fill(apart, float("-inf")).softmax(1) @ vectors
    return vectors + others


def instance_relation(
    student: Tensor, teacher: Tensor, boxes: Tensor, image: Tensor, temperature: float = 0.5
) -> Tensor:
    """mean((H(V_s) - H(V_t))^2) over the boxes of all images.

    It does not depend on the order of the boxes, nor on their number.

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.
        boxes: (K, 4) corners as shares of the image.
        image: (K,) image of each box.
        temperature: Of the attention.

    Returns:
        Scalar >= 0, fp32 (fp64 for fp64 inputs); 0 without boxes.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        if not len(boxes):
            return 0.0 * student.float().sum()
        own, theirs = (reason(instances(x, boxes, image, temperature), image) for x in (student, teacher))
        return mean((own - theirs).square())


def largest_per_image(boxes: Tensor, image: Tensor, most: int = MOST_BOXES) -> Tensor:
    """Numbers of at most ``most`` boxes per image, the largest ones.

    Args:
        boxes: (M, 4) corners.
        image: (M,) image of each.
        most: Boxes to keep.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    by_size = (sides[:, 0] * sides[:, 1]).argsort(descending=True, stable=True)
    order = by_size[image[by_size].argsort(stable=True)]
    counts = torch.bincount(image, minlength=1)
    first = (counts.cumsum(0) - counts)[image[order]]
    rank = torch.arange(len(order), device=order.device) - first
    return order[rank < most]


class PixelRelation(FeatureTerm):
    """DRD between places: both maps after reasoning on one fixed random graph."""

    def __init__(self, shape: PairShape, *, nodes: int = 32, graphs: str = "fixed", seed: int = 0):
        """Build adapters and graphs.

        Args:
            shape: Channels of the compared layers.
            nodes: Nodes of a graph.
            graphs: "fixed" (drawn once) or "resample" (anew for every batch, as published).
            seed: Seed of the fixed graphs, which leave the random state of the training alone.

        Raises:
            ValueError: An option has a wrong value.
        """
        super().__init__(shape)
        nodes, seed = check_integer("nodes", nodes, least=1), check_integer("seed", seed)
        self.resample = check_choice("graphs", graphs, ("fixed", "resample")) == "resample"
        generator = torch.Generator().manual_seed(seed)
        self.graphs = nn.ModuleList(PixelGraph(c, nodes, generator) for c in shape.teacher_channels)

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`pixel_relation` of one level."""
        graph: Any = self.graphs[level]
        if self.resample:
            graph.draw(torch.Generator().manual_seed(int(torch.randint(2**31, (1,)))))
        return pixel_relation(student, teacher, graph)


class InstanceRelation(FeatureTerm):
    """DRD between defects: how similar the defects of an image are to each other, in both networks."""

    needs_boxes = True

    def __init__(self, shape: PairShape, *, temperature: float = 0.5):
        """Build the adapters.

        Args:
            shape: Channels of the compared layers.
            temperature: Of the attention.

        Raises:
            ValueError: An option has a wrong value.
        """
        super().__init__(shape)
        self.temperature = check_positive("temperature", temperature)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Mean of :func:`instance_relation` over the levels."""
        boxes, image = corners(batch)
        kept = largest_per_image(boxes, image)
        boxes, image = boxes[kept], image[kept]
        pairs = self.pairs(student, teacher)
        return torch.stack([instance_relation(fs, ft, boxes, image, self.temperature) for fs, ft in pairs]).mean()
