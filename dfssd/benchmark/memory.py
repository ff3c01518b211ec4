"""Peak memory of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dfssd.log import without_notes


def held_bytes(modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """Bytes that a training holds between two steps: weights, buffers, and the state of the optimizer, each once."""
    tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    tensors += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def step_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """Peak of the bytes that one call of ``step`` allocates, above those allocated before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    from torch.profiler import ProfilerActivity, profile

    with without_notes(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = recorded.profiler.kineto_results.events()
    return peak(sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"))


def peak(allocations: Iterable[tuple[int, int]]) -> int:
    """Highest sum of the allocations so far: (time, bytes), in the order of time; bytes set free are negative."""
    held = highest = 0
    for _, size in allocations:
        held += size
        highest = max(highest, held)
    return highest


def graph_bytes() -> int:
    """Bytes in the private pools of all CUDA graphs of this process, which replaying does not allocate again."""
    if not torch.cuda.is_available():
        return 0
    segments = torch.cuda.memory_snapshot()
    return sum(s["total_size"] for s in segments if tuple(s.get("segment_pool_id", (0, 0))) != (0, 0))
