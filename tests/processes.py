"""Child processes: killed in the middle, as a power cut would, or free of our code.

They are forked from a server that has loaded the libraries once and ``dfssd`` never (on Windows each is started anew).
Each is a process of its own all the same, with memory, threads and death of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES: Any = multiprocessing.get_context(METHOD)
LIBRARIES = ["torch", "torchvision", "ultralytics.models.yolo", "albumentations", "onnxruntime", "matplotlib.pyplot"]
if METHOD == "forkserver":
    PROCESSES.set_forkserver_preload(LIBRARIES)


@dataclass(frozen=True)
class Finished:
    """Exit code of a process and what it wrote to either stream."""

    returncode: int
    output: str


def run(target: Callable[..., Any], *args: Any, folder: Path) -> Finished:
    """Call ``target(*args)`` in a process whose working directory is ``folder``, and wait for its end.

    Its exit code is 0, that of ``SystemExit`` or ``os._exit``, or 1 after any other exception.
    """
    log = folder / f"{target.__name__}.out"
    process = PROCESSES.Process(target=_work, args=(target, args, folder, log))
    process.start()
    process.join(300)
    assert process.exitcode is not None, "the process has not ended in five minutes"
    return Finished(process.exitcode, log.read_text(encoding="utf-8", errors="replace"))


def run_without_dfssd(code: str, folder: Path) -> Finished:
    """Run ``code`` in a process that has not loaded ``dfssd`` and cannot."""
    return run(execute_without_dfssd, code, folder=folder)


def execute_without_dfssd(code: str) -> None:
    """Body of :func:`run_without_dfssd`."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "dfssd"]
    sys.modules["dfssd"] = None  # type: ignore[assignment]  # an import of it fails
    exec(compile(code, "code", "exec"), {"__name__": "__main__"})


def command_line(words: Sequence[str]) -> None:
    """The program as ``train.py`` runs it."""
    from dfssd.cli import main

    raise SystemExit(main(words))


def kill_when(words: list[str], run: Path, markers: Iterable[Path]) -> None:
    """Run the command line, kill it as soon as a marker exists, then resume and kill it for each next marker."""
    for marker in markers:
        again = [f"resume={run}"] if run.exists() else []
        arguments = (command_line, ([*words, *again],), Path.cwd(), Path(os.devnull))
        process = PROCESSES.Process(target=_work, args=arguments)
        process.start()
        deadline = time.monotonic() + 300
        while not marker.exists() and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert marker.exists() and process.is_alive(), "the run ended before it could be killed"
        process.kill()
        process.join()
        process.close()


def _work(target: Callable[..., Any], args: tuple, folder: Path, log: Path) -> None:
    """Send both streams to ``log``, those of C libraries, too, and call ``target`` in ``folder``."""
    with open(log, "w", encoding="utf-8") as f:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(f.fileno(), stream.fileno())
    os.chdir(folder)
    target(*args)
