"""Files that would run a program: it writes a file, which shows that it has been run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.patches import torch_load


def code(marker: Path) -> str:
    """A Python expression that writes ``marker``."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


class Program:
    """Runs an expression when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (code(self.marker),)


def infect(checkpoint: Path, marker: Path) -> Path:
    """Hide a program in a checkpoint, which otherwise stays as it is."""
    content = torch_load(checkpoint, map_location="cpu")
    torch.save({**content, "extra": Program(marker)}, checkpoint)
    return checkpoint


def write_label_cache(path: Path, marker: Path) -> None:
    """A file of the name and the format in which Ultralytics keeps labels."""
    with open(path, "wb") as file:
        np.save(file, np.array({"version": Program(marker)}, dtype=object), allow_pickle=True)
