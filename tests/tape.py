"""A stand-in for CUDA graphs on a CPU: a tape of operators that is replayed with the same memory.

As in a graph, Python runs at the recording only; whatever it decided then is decided for good. Results and intermediate
tensors keep their memory and are overwritten by each replay; nothing is computed before the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


def memory(value: Any) -> Any:
    """The tensors of a nested structure without autograd and its notes of changes, in the same memory."""
    return tree_map_only(Tensor, lambda t: t.data, value)


class _Taping(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.tape.append((function, memory(args), memory(kwargs or {}), memory(result)))
        return result


class TapeRecorder:
    """Records operators; the interface of :class:`dfssd.trainers.graphs.CudaRecorder`."""

    def __init__(self) -> None:
        self.turn = self.recordings = self.replays = 0

    def warm_up(self, function: Callable[[], Any]) -> None:
        function()

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
        self.recordings += 1
        with _Taping() as taping:
            results = function()
        with torch.inference_mode():
            for result in results:
                result.data.fill_(float("nan"))

        def replay() -> None:
            self.replays += 1
            with torch.inference_mode(), torch.autocast("cpu", enabled=False):
                for operator, args, kwargs, kept in taping.tape:
                    fresh = operator(*args, **kwargs)
                    for old, new in zip(tree_leaves(kept), tree_leaves(fresh), strict=True):
                        if isinstance(old, Tensor):
                            old.copy_(new)

        return results, replay


class SilentRecorder(TapeRecorder):
    """Replays that cost no operators, as those of a graph: for counting, the results are those of the recording."""

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
        return function(), lambda: None
