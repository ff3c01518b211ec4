"""Fused optimizers: one kernel for all parameters of a group, on CUDA and on CPUs alike.

Ultralytics fuses Adam and AdamW on CUDA only. On a CPU the same step takes ten operators for each parameter; and SGD
under mixed precision reads a flag from the GPU in every step unless it is fused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

FUSED = (Adam, AdamW, SGD)
"""The optimizers of which PyTorch has fused kernels; others, MuSGD among them, stay as they are."""

DEVICES = ("cpu", "cuda")
"""Where all of these kernels exist, from PyTorch 2.6 on."""


def fused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimizer with fused kernels, whose steps are equal up to rounding.

    Args:
        optimizer: One that has not made a step yet.

    Returns:
        A new optimizer over the same parameters and settings; ``optimizer`` itself if PyTorch has no fused kernels for
        its kind or its device.
    """
    kind: Any = type(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if kind not in FUSED or any(p.device.type not in DEVICES for p in parameters):
        return optimizer
    if not optimizer.defaults["fused"]:
        # the constructor, not the groups alone, tells mixed precision that the kernel skips overflows itself
        optimizer = kind([{**group, "fused": True} for group in optimizer.param_groups], fused=True)
    optimizer.register_load_state_dict_post_hook(_in_layout_of_parameters)
    return optimizer


def _in_layout_of_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Bring loaded moments into the memory layout of their parameters: fused kernels read both as plain memory.

    They differ where a training goes on with other strides than it began with: channels innermost on a GPU, and rows
    on a CPU.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
