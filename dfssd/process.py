"""Environment of this process, set before Ultralytics is imported, and of child processes."""

from __future__ import annotations

import os
import sys

import psutil

from dfssd import resources

COMMAND = (sys.executable, "-m", "dfssd")
"""Starts the command line in a child process, with :func:`environment`."""


def prepare_process() -> None:
    """Set the environment variables that large packages read on import, unless the user has set them.

    ``YOLO_AUTOINSTALL=false``: Ultralytics installs missing packages at run time otherwise.
    ``OMP_NUM_THREADS``: all cores. Ultralytics sets it to 1 if it is unset, which halves the training speed on a CPU
    with as few as two cores.
    ``MLFLOW_DISABLE_TELEMETRY``, ``WANDB_ERROR_REPORTING``: these packages report to their makers otherwise, and
    Ultralytics imports MLflow wherever it is installed.

    Commands, and :func:`dfssd.train`, call this before they import anything large; ``import dfssd`` does not, since an
    import must not change the environment. The processes of several GPUs inherit them.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("OMP_NUM_THREADS", str(min(psutil.cpu_count(logical=False) or allowed, allowed)))


def environment() -> dict[str, str]:
    """The environment of a child process, in which this copy of the package is importable from any folder."""
    root = resources.source_tree()
    if root is None:
        return dict(os.environ)
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *([others] if others else [])])}
