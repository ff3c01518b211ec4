"""Ray: started on this machine, or reached where ``RAY_ADDRESS`` says; silent, and without reports to its makers."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dfssd.errors import UserError
from dfssd.interrupts import own_handlers
from dfssd.log import without_notes

EXTRA = "engine=ray: Ray is not installed: pip install 'dfssd[ray]'"

PATIENCE = 10.0
"""How long a cluster may take to answer [s]."""


@contextmanager
def ray_cluster(cpus: float, gpus: float) -> Iterator[Any]:
    """The package ``ray``, connected to a cluster; one that was started here is stopped after the block.

    Args:
        cpus: Cores that one of its machines must have.
        gpus: GPUs that it must have as well.

    Raises:
        UserError: Ray is not installed, cannot be reached, or has no machine with these resources.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it writes to the standard error otherwise
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 otherwise: whatever else runs would stop the work
    try:
        import ray
    except ModuleNotFoundError as e:
        raise UserError(EXTRA) from e
    started = not ray.is_initialized()
    if started:
        _check_address(os.environ.get("RAY_ADDRESS", ""))
    try:
        try:
            if started:
                with own_handlers(), without_notes():  # such as that it keeps silent
                    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        except (ConnectionError, OSError, RuntimeError, ValueError) as e:
            raise UserError(f"engine=ray: Ray cannot be started or reached ({str(e).splitlines()[0]})") from e
        wanted = {"CPU": cpus, "GPU": gpus}
        if not any(all(node.get(kind, 0) >= n for kind, n in wanted.items()) for node in nodes):
            raise UserError(
                f"engine=ray: no machine of it has cpus={cpus:g} gpus={gpus:g}: ask for less, or set RAY_ADDRESS to a "
                "cluster that has"
            )
        yield ray
    finally:
        if started:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse the address of a cluster at which nobody answers, which Ray would ask for minutes.

    Raises:
        UserError: There is no connection within :data:`PATIENCE`.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():  # none, or a word such as "auto"
        return
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError as e:
        raise UserError(f"engine=ray: nobody answers at RAY_ADDRESS={address} ({e.strerror or e})") from e
