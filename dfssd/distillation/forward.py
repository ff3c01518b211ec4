"""The forward passes of a training step as functions ``images -> maps``, which a faster callable may replace.

Everything that losses and terms read of a network leaves its pass as plain nested lists and dictionaries of tensors. So
the pass depends on the images alone, and a captured CUDA graph or a compiled function can stand in for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfssd.batches import Batch, HostBatch
from dfssd.distillation.heads import Tap, tapped

RAW = ("boxes", "scores")
"""What is read of the raw outputs of a detection head."""


class Maps(NamedTuple):
    """What one forward pass of a network gives for N images.

    Attributes:
        feats: Maps of the compared layers, each (N, C_l, H_l, W_l).
        heads: Raw outputs of the one-to-many head and, behind it, of the one-to-one head of an end-to-end network:
            ``boxes`` (N, 4 * reg_max, A) and ``scores`` (N, nc, A), logits both.
        hidden: Tap -> maps inside the one-to-many head, level by level, each (N, C, H_l, W_l).
    """

    feats: list[Tensor]
    heads: list[dict[str, Tensor]]
    hidden: dict[Tap, list[Tensor]]


class ForwardPass(nn.Module):
    """One network, and what is read of it in a step.

    Hooks are set for the duration of a call only: a permanent one would be pickled into checkpoints. The boxes of a
    head in eval mode are not decoded, since nobody reads them.
    """

    def __init__(self, network: Any, layers: Sequence[int], taps: Collection[Tap] = (), *, frozen: bool = False):
        """Wrap ``network``.

        Args:
            network: Detection model; its mode is not changed.
            layers: Numbers of the compared layers.
            taps: Maps inside its detection head that are read.
            frozen: Compute without gradient.
        """
        super().__init__()
        self.network, self.layers, self.taps, self.frozen = network, tuple(layers), tuple(taps), frozen

    def forward(self, images: Tensor) -> Maps:
        """Run the network on images (N, 3, H, W), 0 to 1."""
        head = self.network.model[-1]
        found: dict[int, Tensor] = {}
        with ExitStack() as stack:
            if self.frozen:
                stack.enter_context(torch.no_grad())
            for layer in self.layers:
                handle = self.network.model[layer].register_forward_hook(
                    lambda module, args, output, layer=layer: found.update({layer: output})
                )
                stack.callback(handle.remove)
            hidden = stack.enter_context(tapped(head, self.taps))
            stack.enter_context(undecoded(head))
            raw = self.network(images)
        branches = [raw[name] for name in ("one2many", "one2one")] if "one2many" in raw else [raw]
        heads = [{key: branch[key] for key in RAW} for branch in branches]
        return Maps([found[layer] for layer in self.layers], heads, hidden)


def round_weights(network: nn.Module, precision: torch.dtype) -> None:
    """Round the weights of convolutions once as autocast would in every pass: of frozen weights it keeps no copies.

    Args:
        network: Changed in place; under autocast of the same precision it computes the same as before, bit by bit.
        precision: A half precision.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(precision)


@contextmanager
def undecoded(head: Any) -> Iterator[None]:
    """Block in which a detection head returns its raw outputs only, whatever its mode.

    Ultralytics' head asks its own flag ``training`` for that; the layers inside it keep their mode.
    """
    before, head.training = head.training, True
    try:
        yield
    finally:
        head.training = before


def level_sizes(images: Tensor, strides: Sequence[int]) -> list[tuple[int, int]]:
    """(height, width) of each level of a detection head [cells] for images (N, 3, H, W)."""
    height, width = images.shape[2:]
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def teacher_views(batch: HostBatch | Batch, labeled: int) -> Tensor:
    """The images as the teacher sees them: unlabeled ones, which come last, in their weak views if they have any."""
    if "weak_img" not in batch or not len(batch["weak_img"]):
        return batch["img"]
    views = torch.empty_like(batch["img"])  # in the same memory layout: on CPUs, that with the channels innermost
    return torch.cat([batch["img"][:labeled], batch["weak_img"].to(views.dtype)], out=views)
