"""Environment of this process, set before Ultralytics is imported, and of child processes."""

from __future__ import annotations

import os
import sys

import psutil

from dfssd import resources

SAFE_LOAD = "ULTRALYTICS_SAFE_LOAD"
"""The variable by which Ultralytics, and the processes that we start, know whether files are trusted: 0 if they are."""

SILENT = {
    "YOLO_OFFLINE": "1",  # Ultralytics: name look-ups on import, what is trained to Google Analytics, newer versions
    "NO_ALBUMENTATIONS_UPDATE": "1",  # asks PyPI on import
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime: to Microsoft, from threads of its own
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
"""Variables by which packages do not report to their makers, and do not look for newer versions of themselves.

Downloads that a line asks for by name (``teacher=yolov8s.pt``, ``data=CR7-DET``) are none of their business.
"""

COMMAND = (sys.executable, "-m", "dfssd")
"""Starts the command line in a child process, with :func:`environment`."""


def prepare_process() -> None:
    """Set the environment variables that large packages read on import, unless the user has set them.

    ``YOLO_AUTOINSTALL=false``: Ultralytics installs missing packages at run time otherwise.
    ``OMP_NUM_THREADS``: all cores. Ultralytics sets it to 1 if it is unset, which halves the training speed on a CPU
    with as few as two cores.
    ``ULTRALYTICS_SAFE_LOAD=1``: files are read, and no code in them is run (:mod:`dfssd.trust.checkpoints`).
    :data:`SILENT`: nobody is told that, or what, this process computes. OpenVINO knows no such variable; the package by
    which it reports does not exist for this process.

    Commands, and :func:`dfssd.train`, call this before they import anything large; ``import dfssd`` does not, since an
    import must not change the environment. The processes of several GPUs inherit them.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault(SAFE_LOAD, "1")
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails
    os.environ.setdefault("OMP_NUM_THREADS", str(min(psutil.cpu_count(logical=False) or allowed, allowed)))


def trust_files(trust: bool) -> None:
    """Set, for this process and those that it starts, whether files may run code: the key ``trust`` of a command.

    It also reaches Ultralytics where that has been imported before, and has read the variable.
    """
    os.environ[SAFE_LOAD] = "0" if trust else "1"
    for name in ("ultralytics.utils", "ultralytics.nn.tasks"):
        if module := sys.modules.get(name):
            setattr(module, "SAFE_LOAD", not trust)  # noqa: B010 - a constant to the type checker


def trusts_files() -> bool:
    """Whether files may run code; False where nobody has said so."""
    return os.environ.get(SAFE_LOAD, "1").strip().lower() in {"0", "false", "no", "off", "n", "f"}


def environment() -> dict[str, str]:
    """The environment of a child process, in which this copy of the package is importable from any folder."""
    root = resources.source_tree()
    if root is None:
        return dict(os.environ)
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *([others] if others else [])])}
