"""torchrun on one node or several, for tests: its engine, with processes that are forked from a server."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests.processes import METHOD


def worker(words: list[str], folder: Path) -> None:
    """The program in one process; what it prints goes to a file of its own."""
    rank = os.environ["RANK"]
    (folder / f"pid.{rank}").write_text(str(os.getpid()))
    with open(folder / f"out.{rank}", "w", encoding="utf-8") as f:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(f.fileno(), stream.fileno())
    os.chdir(folder)
    from dfssd.cli import main
    from dfssd.loading import store
    from dfssd.runs.stages import StagedRun
    from dfssd.trainers import validation_data

    StagedRun.export = lambda run: "skipped"  # type: ignore[method-assign,assignment]
    code = main(words)
    (folder / f"kept.{rank}").write_text(f"{len(store._kept)} {len(validation_data._kept)}")
    raise SystemExit(code)


class Agent(threading.Thread):
    """torchrun on one of several nodes, in a thread: all of them fork their processes from one server.

    Attributes:
        exitcode: That of the process which has failed first, 0 if none has; None before the end.
    """

    def __init__(self, node: int, nodes: int, per_node: int, port: int, words: list[str], folder: Path):
        super().__init__(daemon=True)
        self.exitcode: int | None = None
        self._call = (words, folder)
        self._config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=per_node,
            run_id="test",
            rdzv_backend="static",
            rdzv_endpoint=f"127.0.0.1:{port}",
            rdzv_configs={"rank": node, "timeout": 120},
            max_restarts=0,
            monitor_interval=0.05,
            start_method=METHOD,
        )

    def run(self) -> None:
        """Start the processes and watch over them."""
        try:
            elastic_launch(self._config, worker)(*self._call)
            self.exitcode = 0
        except ChildFailedError as e:
            self.exitcode = e.get_first_failure()[1].exitcode


def started(words: list[str], folder: Path, *, nodes: int, per_node: int) -> list[Agent]:
    """torchrun on all nodes."""
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    for old in folder.glob("*.[01]"):
        old.unlink()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    agents = [Agent(node, nodes, per_node, port, words, folder) for node in range(nodes)]
    for agent in agents:
        agent.start()
    return agents


def ended(agents: list[Agent], seconds: float = 200) -> list[int]:
    """The exit codes of torchrun."""
    codes = []
    for agent in agents:
        agent.join(seconds)
        assert agent.exitcode is not None, "torchrun has not ended"
        codes.append(agent.exitcode)
    return codes


def said(folder: Path, rank: int) -> list[str]:
    """What a process has printed."""
    return (folder / f"out.{rank}").read_text(encoding="utf-8").splitlines()


def until(there: Callable[[], bool], agents: list[Agent]) -> None:
    """Wait until something is there."""
    deadline = time.monotonic() + 200
    while not there():
        assert time.monotonic() < deadline and any(one.is_alive() for one in agents), "it has ended before"
        time.sleep(0.02)
