"""What the processes of a training tell each other; without others, each function returns what it is given.

Numbers of the host go through a group on gloo, tensors through that of their device: NCCL between GPUs, gloo between
CPUs.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from dfssd.distributed.place import place

_apart = False
"""Whether this process works on its own at the moment, although it is connected with others."""

_host: Any = None
"""The group for what is not on a device; None: the only one that there is."""


def several() -> bool:
    """Whether processes train together now."""
    return bool(dist.is_initialized()) and not _apart


def rank() -> int:
    """Number of this process among those that train together, over all nodes; 0 without others."""
    return dist.get_rank() if several() else 0


def world() -> int:
    """Number of processes that train together; 1 without others."""
    return dist.get_world_size() if several() else 1


def is_first() -> bool:
    """Whether this process writes what there is one of: files, lines for the user."""
    return rank() == 0


def total(values: np.ndarray) -> np.ndarray:
    """Sum over the processes, element by element; float64."""
    table = np.array(values, dtype=np.float64)
    if several():
        dist.all_reduce(torch.from_numpy(table), group=_host)
    return table


def mean_of(values: Tensor) -> Tensor:
    """Mean over the processes, element by element, on the device of ``values``, without gradient."""
    if not several():
        return values.detach()
    values = values.detach().clone()
    dist.all_reduce(values)  # gloo has no mean
    return values / dist.get_world_size()


def normalizer(own: Tensor, least: float | None = None) -> Tensor:
    """What a process divides its part of a loss by: the mean over the processes is then the loss of the joint batch.

    With the sum T_r of process r of R, and a joint loss sum_r S_r / max(1, sum_r T_r), it is max(1, sum_r T_r) / R: the
    mean over the processes of S_r divided by that is the joint loss.

    Args:
        own: T_r, of any shape, >= 0.
        least: What takes the place of 1 / R, if it is not 1 that limits the sum: of a limit that grows with the images,
            the part of those of one process.
    """
    return mean_of(own).clamp(min=1 / world() if least is None else least)


def from_first(value: Any) -> Any:
    """What the first process gives here."""
    if not several():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_host)
    return box[0]


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if several():
        dist.barrier(group=_host)


def connect(store: dist.Store, *, gpu: bool, wait: Any, collective: Any) -> None:
    """Connect this process with the others; it works on its own until :func:`together`.

    Args:
        store: Where they find each other.
        gpu: Their devices are GPUs.
        wait: How long the others may wait for what the first one does alone (timedelta).
        collective: How long they may wait for each other within a training (timedelta).
    """
    global _host, _apart
    _apart = True
    _tell_ultralytics(-1, -1)  # where it was imported first
    mine = place()
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=mine.rank, world_size=mine.world, timeout=collective)
    _host = dist.new_group(backend="gloo", timeout=wait)


def disconnect(*, in_order: bool) -> None:
    """Let go of the others.

    Args:
        in_order: They do so as well. If not, what they wait for on GPUs may never be done, and is left to the end of
            the process; their other connections are closed, by which they notice.
    """
    global _host, _apart
    if dist.is_initialized():
        whole = in_order or dist.get_backend() == "gloo"
        dist.destroy_process_group(None if whole else _host)
    _host, _apart = None, False


def hand_out(job: Any = None) -> Any:
    """Give ``job`` of the first process to all; the others wait for it here."""
    box = [job]
    dist.broadcast_object_list(box, src=0, group=_host)
    return box[0]


def gather(value: Any) -> list[Any]:
    """The values of all processes in their order, on the first one; an empty list on the others."""
    first = dist.get_rank() == 0
    found: list[Any] | None = [None] * dist.get_world_size() if first else None
    dist.gather_object(value, found, dst=0, group=_host)
    return found or []


@contextlib.contextmanager
def together() -> Iterator[None]:
    """The block is done by all processes alike; Ultralytics knows of them there."""
    global _apart
    if not _apart:
        yield
        return
    _apart = False
    _tell_ultralytics(place().rank, place().local_rank)
    try:
        yield
    finally:
        _apart = True
        _tell_ultralytics(-1, -1)


def _tell_ultralytics(rank: int, local_rank: int) -> None:
    """Set the number of this process in all modules of Ultralytics, which copy it when they are imported."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "ultralytics":
            for constant, value in (("RANK", rank), ("LOCAL_RANK", local_rank)):
                if constant in vars(module):
                    setattr(module, constant, value)
