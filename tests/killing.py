"""Runs that are killed in the middle, as a power cut would."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def kill_when(words: list[str], run: Path, markers: Iterable[Path]) -> None:
    """Start ``train.py``, kill it as soon as a marker exists, then resume and kill it for each next marker."""
    for marker in markers:
        again = [f"resume={run}"] if run.exists() else []
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words, *again],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 300
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert marker.exists() and process.poll() is None, "the run ended before it could be killed"
        process.kill()
        process.wait()
