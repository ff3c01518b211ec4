"""DRD: dual relation distillation, of places and of defects, by reasoning on graphs (TKD, TSKD).

The published code redraws the weights of its graphs in every call, uses the boxes of a batch as channels of one graph
(which fails for a single box and mixes images), and in its journal version a line break removes both parts from the
loss. Here the pixel graphs are drawn once and stay (``graphs="resample"`` redraws them), and the instance graph has no
weights: the defects of an image are its nodes, their similarity its edges. Training the graphs by this loss would let
them hide the difference that they are meant to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfssd.batches import Batch
from dfssd.checks import check_choice, check_integer, check_positive
from dfssd.distillation.terms.base import (
    FeatureTerm,
    PairShape,
    check_same_maps,
    exact,
    no_autocast,
    standardize,
    standardized,
)
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.instances import instance_relation
from dfssd.distillation.terms.levels import Maps, as_maps, rows
from dfssd.distillation.terms.regions import corners


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
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape))
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


class _OneLevel:
    """One level on its way through its graph, and back: the N maps of the student, and after them the teacher's.

    The channels are innermost, (.., H W, C), so that the same few matrix products serve all places.
    """

    def __init__(self, student: Tensor, teacher: Tensor, graph: PixelGraph) -> None:
        """Project the standardized maps, up to the nodes Z, times H W."""
        self.shape = n, c, _, _ = student.shape
        self.own, self.to_own_map = standardized(student, layout=torch.channels_last)
        self.theirs, _ = standardized(teacher, layout=torch.channels_last)
        over_states, back, values, bases = (
            x.to(student.dtype) for x in (graph.over_states, graph.back, graph.values, graph.bases)
        )
        self.out = (back @ over_states).T  # (2n, C)
        self.weights = torch.cat([values, bases])
        places = torch.cat([rows(self.own), rows(self.theirs)])
        projected = (places.view(-1, c) @ self.weights.T).view(2 * n, -1, len(self.weights))
        self.on_values, self.on_bases = projected.split([len(values), len(bases)], 2)
        self.nodes = torch.bmm(self.on_values.transpose(1, 2), self.on_bases)

    def added(self, reasoned: Tensor) -> tuple[Tensor, Tensor]:
        """G(F) - F of both networks, (N, C, H, W), from the reasoned nodes (2 N, 2n, n)."""
        n, _, h, w = self.shape
        self.over_channels = torch.bmm(reasoned.transpose(1, 2), self.out.expand(2 * n, *self.out.shape))  # (2 N, n, C)
        added = as_maps(torch.bmm(self.on_bases, self.over_channels), h, w)
        own, self.to_added = standardized(added[:n], layout=torch.channels_last)
        return own, standardized(added[n:], layout=torch.channels_last)[0]

    def to_reasoned(self, gradient: Tensor) -> Tensor:
        """Gradient for the gap -> that for the reasoned nodes of the student, (N, 2n, n)."""
        n = len(gradient)
        self.to_places = rows(gradient)
        added = rows(self.to_added(gradient))
        self.to_bases = torch.bmm(added, self.over_channels[:n].transpose(1, 2))
        over_channels = torch.bmm(self.on_bases[:n].transpose(1, 2), added)
        return torch.bmm(self.out.expand(n, *self.out.shape), over_channels.transpose(1, 2))

    def to_own(self, nodes: Tensor) -> Tensor:
        """Gradient for the nodes of the student, times H W -> that for its map."""
        n, c, h, w = self.shape
        values = torch.bmm(self.on_bases[:n], nodes.transpose(1, 2))
        bases = self.to_bases.baddbmm_(self.on_values[:n], nodes)
        projected = torch.cat([values, bases], 2).view(-1, len(self.weights))
        places = torch.addmm(self.to_places.view(-1, c), projected, self.weights)
        return self.to_own_map(as_maps(places.view(n, -1, c), h, w))


def pixel_relation(students: Sequence[Tensor], teachers: Sequence[Tensor], graphs: Sequence[PixelGraph]) -> Tensor:
    """mean((G(F_s) - G(F_t))^2) of the standardized maps, one graph for both networks; mean over the levels.

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.
        graphs: G of each level, for its C channels; all with as many nodes.

    Returns:
        Scalar >= 0, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)

    def compute(*own: Tensor) -> tuple[Tensor, list[Tensor]]:
        levels = [_OneLevel(s, t, graph) for s, t, graph in zip(own, theirs, graphs, strict=True)]
        over_nodes = torch.stack([graph.over_nodes for graph in graphs]).to(own[0].dtype)
        places = [1 / (x.shape[2] * x.shape[3]) for x in own]
        scaled = Maps(level.nodes for level in levels)
        scaled *= places
        nodes = torch.stack(scaled)  # (levels, 2 N, 2n, n)
        flat = nodes.flatten(1, 2)
        reasoned = torch.baddbmm(flat, flat, over_nodes.transpose(1, 2)).relu_().view(nodes.shape)

        added, theirs_added = zip(*(level.added(x) for level, x in zip(levels, reasoned.unbind())))
        gap = Maps(added)
        gap += [level.own for level in levels]
        gap -= theirs_added
        gap -= [level.theirs for level in levels]
        value = torch.stack([torch.dot(x, x) / len(x) for x in (rows(x).view(-1) for x in gap)]).mean()
        gap *= [2 / (x.numel() * len(gap)) for x in gap]

        to_reasoned = torch.stack([level.to_reasoned(x) for level, x in zip(levels, gap)])  # (levels, N, 2n, n)
        student = reasoned[:, : len(own[0])]
        flat = torch.ops.aten.threshold_backward(to_reasoned, student, 0).flatten(1, 2)
        to_nodes = Maps(torch.baddbmm(flat, flat, over_nodes).view(to_reasoned.shape).unbind())
        to_nodes *= places
        return value, [level.to_own(x) for level, x in zip(levels, to_nodes)]

    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(compute, exact(*students))


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

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`pixel_relation` of all levels."""
        graphs: Any = self.graphs
        if self.resample:
            for graph in graphs:
                graph.draw(torch.Generator().manual_seed(int(torch.randint(2**31, (1,)))))
        return pixel_relation(students, teachers, list(graphs))


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

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`~dfssd.distillation.terms.instances.instance_relation` of all levels."""
        return instance_relation(students, teachers, *corners(batch), self.temperature)
