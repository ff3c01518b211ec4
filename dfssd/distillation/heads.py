"""Inside the detection heads: their hidden maps, and the remaining stages of a head on another network's maps.

A YOLO detection head has two branches, ``box`` and ``cls``, and each has three stages per level: two convolution blocks
(from YOLO11 on each a depthwise and a pointwise one) and a 1x1 convolution. *Tap* ``(branch, k)`` is the input of stage
``k``: for ``k = 0`` the map of the neck, else the output of stage ``k - 1`` before its activation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules.conv import Conv

Tap = tuple[str, int]
"""Branch (``box`` or ``cls``) and number of stages done (0, 1 or 2)."""

BRANCHES = {"box": "cv2", "cls": "cv3"}
"""Branch -> attribute of Ultralytics' ``Detect``: those of the one-to-many head, where there are two."""

TAPS: tuple[Tap, ...] = tuple((branch, stage) for branch in BRANCHES for stage in (0, 1, 2))


def _levels(head: Any, branch: str) -> Sequence[Any]:
    levels: Sequence[Any] = getattr(head, BRANCHES[branch])
    return levels


def _last_block(stage: Any) -> Any:
    """The convolution block (convolution, normalization, activation) at the end of a stage."""
    return stage[-1] if isinstance(stage, nn.Sequential) else stage


def tap_channels(head: Any) -> dict[Tap, tuple[int, ...]]:
    """Channels of every tap on every level of a head."""
    found: dict[Tap, tuple[int, ...]] = {}
    for branch, stage in TAPS:
        channels = []
        for level in _levels(head, branch):
            if stage:
                channels.append(_last_block(level[stage - 1]).conv.out_channels)
            else:
                first: Any = level[0][0] if isinstance(level[0], nn.Sequential) else level[0]
                channels.append(first.conv.in_channels)
        found[branch, stage] = tuple(channels)
    return found


@contextmanager
def tapped(head: Any, taps: Collection[Tap]) -> Iterator[dict[Tap, list[Tensor]]]:
    """Collect ``taps`` of all levels in the forward passes of ``head`` within the block.

    The hooks are removed after the block: a permanent one would be pickled into checkpoints. Outputs of convolution
    blocks are copied, since Ultralytics' activations overwrite them.

    Yields:
        Tap -> maps (N, C, H, W) of the levels, filled by the forward pass.
    """
    found: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
    handles: list[Any] = []
    try:
        for (branch, stage), maps in found.items():
            for level in _levels(head, branch):
                if stage == 0:
                    handles.append(level[0].register_forward_pre_hook(lambda _, args, maps=maps: maps.append(args[0])))
                    continue
                block = _last_block(level[stage - 1])
                module = block.bn if hasattr(block, "bn") else block.conv  # folded into it, in a teacher for inference
                handles.append(module.register_forward_hook(lambda _, a, out, maps=maps: maps.append(out.clone())))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def finish(head: Any, tap: Tap, maps: Sequence[Tensor]) -> Tensor:
    """Run the remaining stages of one branch of ``head`` on maps that replace those of its own tap.

    The gradient passes through the stages to ``maps``, whether or not the head itself is frozen.

    Args:
        head: A ``Detect`` head.
        tap: Where ``maps`` enter.
        maps: One map per level, (N, C_l, H_l, W_l) with the head's own channels at that tap.

    Returns:
        Raw outputs of the branch, (N, 4 * reg_max or nc, A), levels in order.
    """
    branch, stage = tap
    outputs = []
    for level, x in zip(_levels(head, branch), maps, strict=True):
        if stage:
            x = _activated(_last_block(level[stage - 1]).act, x)
        for block in list(level)[stage:]:
            x = _run(block, x)
        outputs.append(x.flatten(2))
    return torch.cat(outputs, 2)


def _activated(act: Any, x: Tensor) -> Tensor:
    """``act(x)`` without overwriting ``x``: with a gradient, an activation in place copies its input first."""
    return F.silu(x) if isinstance(act, nn.SiLU) else act(x.clone() if getattr(act, "inplace", False) else x)


def _run(stage: Any, x: Tensor) -> Tensor:
    """A stage of a head, or a part of one, with its activations not in place."""
    if isinstance(stage, nn.Sequential):
        for part in stage:
            x = _run(part, x)
        return x
    if isinstance(stage, Conv) and type(stage).forward is Conv.forward:
        x = stage.conv(x)
        return _activated(stage.act, stage.bn(x) if hasattr(stage, "bn") else x)
    return stage(x)
