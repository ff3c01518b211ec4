"""The child process of :mod:`dfssd.runs.beside`: ``python -m dfssd.beside``, what to do on its standard input."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from dfssd.process import prepare_process


def main(order: str) -> None:
    """Compute the section of a stage and write it, whole, to ``<run folder>/.<stage>.json``.

    Args:
        order: JSON object: ``run_dir``, ``stage`` (the task has a method ``<stage>_section``), and ``config``, the
            fields of the configuration of the run.
    """
    from dfssd.config import Config
    from dfssd.files import write_json
    from dfssd.results.record import FILE, RECORDS
    from dfssd.runs.folder import RunFolder
    from dfssd.tasks import TASKS
    from dfssd.trust.limits import set_limits

    given = json.loads(order)
    run_dir, stage, settings = Path(given["run_dir"]), given["stage"], Config(**given["config"])
    set_limits(settings.limits)
    task = settings["task"]
    run = TASKS[task].run(RunFolder(run_dir, RECORDS[task].read(run_dir / FILE)), settings)
    write_json(run_dir / f".{stage}.json", getattr(run, f"{stage}_section")())


def _end_with_parent() -> None:
    """Wait for the end of standard input, which the parent keeps open as long as it lives."""
    os.read(sys.stdin.fileno(), 1)  # a read of the buffered stream would hold its lock when the interpreter ends
    os._exit(1)


if __name__ == "__main__":
    prepare_process()
    order = sys.stdin.buffer.readline().decode()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(order)
