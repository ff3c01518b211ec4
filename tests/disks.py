"""Small file systems, for disks that are full or read-only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def mounted(folder: Path, *options: str) -> bool:
    """Whether a small file system could be mounted there, or mounted anew with other options."""
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    return sys.platform == "linux" and shutil.which("mount") is not None and not subprocess.run(command).returncode


def fill(folder: Path, left: int) -> Path:
    """Leave so many bytes of the file system; the file that takes the others."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - left))
    return ballast
