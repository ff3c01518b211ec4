"""Child processes of benchmarks: how they are started, noted in files, and found again; what machine they run on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from dfssd.files import write_json
from dfssd.process import environment


def run_child(command: Sequence[str], log: Path) -> int:
    """Run a command in a child process that ends with this one; its output goes to ``log``; return the exit code."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            tied(command) if sys.platform == "linux" else list(command),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            write_json(log.with_suffix(".json"), {"host": platform.node(), **identity(process.pid)})
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()


def tied(command: Sequence[str]) -> list[str]:
    """A command that Linux kills with this process: a worker of a cluster may be killed without a word."""
    code = (
        "import ctypes, os, signal\n"
        "ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"  # PR_SET_PDEATHSIG, which outlives exec
        f"if os.getppid() == {os.getpid()}:\n"
        f"    os.execv({command[0]!r}, {list(command)!r})\n"
    )
    return [sys.executable, "-I", "-c", code]


def identity(pid: int) -> dict[str, Any]:
    """A process as it is noted in a file: its start time tells it from a later one of the same number."""
    return {"pid": pid, "created": _created(pid)}


def lives(noted: Mapping[str, Any]) -> bool:
    """Whether a process that :func:`run_child` has noted on this machine is still there."""
    if "pid" not in noted or noted.get("host", platform.node()) != platform.node():
        return False
    return _created(noted["pid"]) == noted["created"] is not None


def _created(pid: int) -> float | None:
    """When a process was started; None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def machine_name(device: str) -> str:
    """Model of the GPU or processor that ``device`` (as in ``results.json``) refers to on this machine."""
    from dfssd.hardware import processor

    if device not in {"cpu", "mps"}:
        import torch

        first = device.split(",")[0]
        if torch.cuda.is_available():
            return torch.cuda.get_device_name(int(first) if first.isdigit() else 0)
    return f"{processor()}, {psutil.cpu_count(logical=False) or '?'} cores"
