"""How a network of any task is evaluated."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfssd.errors import UserError
from dfssd.files import read_yaml


@dataclass(frozen=True)
class EvalSettings:
    """How a network is evaluated on one split of a data set.

    Attributes:
        data_yaml: Ultralytics dataset YAML.
        split: Key of the image list in ``data_yaml``.
        imgsz: Longer side of the network input [px]; rounded up to the stride.
        batch: Images per forward pass.
        device: Ultralytics device; None lets Ultralytics choose.
        rect: Pad to the smallest rectangle (``yolo val``'s default) instead of to a square. An exported file has one
            input shape: compare it with its ``.pt`` on squares.
    """

    data_yaml: Path
    split: str
    imgsz: int
    batch: int
    device: str | None
    rect: bool = True

    def check(self, weights: Path) -> None:
        """Raise :class:`UserError` if ``weights`` are missing or :attr:`data_yaml` has no such split."""
        if not weights.exists():
            raise UserError(f"{weights} does not exist: nothing to evaluate")
        if not read_yaml(self.data_yaml).get(self.split):
            raise UserError(
                f"{self.data_yaml} has no '{self.split}:' entry: add a list of images, or choose another split"
            )


def numbers_in_list(source: Any, files: Iterable[str]) -> list[int]:
    """The place of each image in the list of its split, from 0; -1 for one that is not in it.

    Args:
        source: What the data names for the split; if it is no list file, no image has a place.
        files: The images.
    """
    if not isinstance(source, (str, Path)) or Path(source).suffix != ".txt":
        return [-1 for _ in files]
    listed = filter(None, Path(source).read_text(encoding="utf-8").split("\n"))
    places = {os.path.abspath(file): number for number, file in enumerate(listed)}
    return [places.get(os.path.abspath(file), -1) for file in files]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what Ultralytics logs as information; warnings, errors and progress bars stay."""
    from ultralytics.utils import LOGGER

    def warnings_only(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    # Raising the level instead would switch Ultralytics' progress bars off, too.
    LOGGER.addFilter(warnings_only)
    try:
        yield
    finally:
        LOGGER.removeFilter(warnings_only)
