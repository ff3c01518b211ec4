"""Where this process stands among those of torchrun.

Ultralytics reads ``RANK`` and ``LOCAL_RANK`` when it is imported, and assumes from then on that all processes do the
same: an evaluation on the first one alone would wait for the others. So the variables are taken out of the
environment before anything large is imported, and Ultralytics gets them for the time of a training only
(:func:`dfssd.distributed.group.together`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from dfssd.errors import UserError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_HIDDEN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Place:
    """The place of a process.

    Attributes:
        rank: Its number, over all nodes.
        world: Number of processes, over all nodes.
        local_rank: Its number on this node, which is that of its device.
        local_world: Number of processes on this node.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


_place = Place()


def place() -> Place:
    """The place of this process; alone unless :func:`take_place` has found others."""
    return _place


def take_place() -> None:
    """Read the place of this process from the environment, and hide it there.

    Raises:
        UserError: Some of the variables that torchrun sets are there, and others are not.
    """
    global _place
    found = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name, "-1") != "-1"}
    if not {"RANK", "LOCAL_RANK"} & set(found):
        return
    if missing := [name for name in _VARIABLES if name not in found]:
        raise UserError(
            f"{' and '.join(name for name in _HIDDEN if name in found)} is set, as by torchrun, but not "
            f"{', '.join(missing)}: start several processes with torchrun, or unset what is set for one process"
        )
    _place = Place(*(int(found[name]) for name in _VARIABLES[:4]))
    for name in _HIDDEN:
        os.environ.pop(name)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # warnings of one process would stand among our lines
