"""Starts the command line once for each device of this machine, as torchrun does."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dfssd.distributed.crew import FAILED, REPORT
from dfssd.errors import UserError
from dfssd.interrupts import exit_code
from dfssd.process import environment


def launch(words: Sequence[str], processes: int) -> int:
    """Run the command line in several processes of this machine, and return its exit code.

    If one of them ends with an error, torchrun ends the others; what it says about that itself is not shown.

    Args:
        words: The words after the program name.
        processes: How many; the first one shows what is to be seen.
    """
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    before = dict(os.environ)
    os.environ.update(environment())
    shared = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // processes
    os.environ["OMP_NUM_THREADS"] = str(max(1, shared))
    try:
        elastic_launch(config, sys.executable)("-m", "dfssd", *words)
    except ChildFailedError as e:
        code = e.get_first_failure()[1].exitcode
        return code if code > 0 else FAILED
    except SignalException as e:
        return 128 + int(e.sigval)
    except KeyboardInterrupt as e:
        return exit_code(e)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return 0


def launch_for_folder(words: Sequence[str], processes: int) -> Path:
    """As :func:`launch`, for a program that uses the run afterwards; returns its folder.

    Raises:
        UserError: The run has not been finished; its processes have said why.
    """
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "folder"
        os.environ[REPORT] = str(report)
        try:
            code = launch(words, processes)
        finally:
            del os.environ[REPORT]
        folder = Path(report.read_text(encoding="utf-8")) if report.exists() else None
    if folder is None or code not in {0, 2}:
        raise UserError(f"the run on {processes} devices has ended with exit code {code}, see above")
    return folder
