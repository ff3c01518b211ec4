"""Work of a later stage, done by a process of its own while this one keeps the device busy.

The export of a network computes on the CPU for most of its time, and the test that comes before it on the GPU. Where
there is a GPU the export is started together with the test (:data:`dfssd.runs.stages.BESIDE`), by
``python -m dfssd.beside``; its stage then waits for the rest. If that process fails, for whatever reason, the stage
does the work itself, as it does without a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dfssd.config import Config
from dfssd.log import LOGGER
from dfssd.process import environment

MODULE = "dfssd.beside"
"""What the child process runs."""


class Beside:
    """A child process that computes the section of a stage.

    The child ends with its parent, however that ends: it watches its standard input, which the operating system closes.
    """

    def __init__(self, run_dir: Path, config: Config, stage: str):
        """Start computing the section of ``stage`` of the run in ``run_dir``.

        Args:
            run_dir: Folder of the run.
            config: Its configuration.
            stage: Name of the stage.
        """
        self.stage = stage
        self.file = run_dir / f".{stage}.json"
        self.file.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        assert self.process.stdin is not None
        order = {"run_dir": str(run_dir), "stage": stage, "config": asdict(config)}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any] | None:
        """Wait for the section and return it; None if the process failed."""
        code = self.process.wait()
        if code or not self.file.exists():
            LOGGER.info(f"{self.stage}: the process that had begun it ended with code {code}; done here instead")
            return None
        section: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        return section

    def close(self) -> None:
        """End the process, if it still runs, and remove its file."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.file.unlink(missing_ok=True)
