"""How many operators a function dispatches, and how often it makes the host wait for the device.

On a GPU a small network is limited by launches, not by arithmetic: the number of operators decides the time of a step.
It is the same on every device, so that it can be counted, and held by tests, on a CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = (
    "aten._local_scalar_dense",
    "aten.equal",
    "aten.masked_select",
    "aten.nonzero",
    "aten.repeat_interleave.Tensor",
    "aten._unique2",
    "aten.unique_consecutive",
    "aten.unique_dim",
)
"""Operators whose result, or its size, the host reads: on a GPU it waits until everything before them is done."""


@dataclass(frozen=True)
class Operators:
    """What one call of a function dispatched.

    Attributes:
        launched: Operators, without those that only give a new view of a tensor, which launch nothing.
        waits: Times that the host waits for the device: values read, sizes that depend on values, boolean indices, and
            copies from another device to the CPU.
        by_name: Operators by name, views included.
    """

    launched: int
    waits: int
    by_name: Mapping[str, int]


class _Counting(TorchDispatchMode):
    """Counts operators while it is active, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = self.waits = 0
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = str(function)
        self.by_name[name] += 1
        if not function.is_view:
            self.launched += 1
        self.waits += name.startswith(WAITING) or _indexes_by_bool(name, args) or _leaves_device(args, result)
        return result


def _indexes_by_bool(name: str, args: Sequence[Any]) -> bool:
    """Whether an indexing operator has a boolean index, whose number of hits the host has to know."""
    if not name.startswith(("aten.index.", "aten.index_put", "aten._unsafe_index.", "aten._index_put_impl_")):
        return False
    return any(isinstance(i, Tensor) and i.dtype in {torch.bool, torch.uint8} for i in args[1])


def _leaves_device(args: Sequence[Any], result: Any) -> bool:
    """Whether an operator copies from another device to the CPU."""
    if not (isinstance(result, Tensor) and result.device.type == "cpu"):
        return False
    return any(isinstance(a, Tensor) and a.device.type not in {"cpu", "meta"} for a in args)


def count_operators(function: Callable[[], Any]) -> Operators:
    """Call ``function`` once and count what it dispatches."""
    with _Counting() as mode:
        function()
    return Operators(mode.launched, mode.waits, dict(mode.by_name))
