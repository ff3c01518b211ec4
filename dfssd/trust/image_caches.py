"""Pixels come from the image files, or from what this process has kept of them.

Ultralytics reads ``image.npy`` beside ``image.png`` in its place, whoever has written it and whatever it shows, unless
it is older; a damaged one it removes. Here no such file is looked at: what ``cache=disk`` writes lies in a folder that
this process has made for it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ultralytics.data.base import BaseDataset

_NAME = "npy_files"

_NOWHERE = Path(tempfile.gettempdir()) / f"dfssd-{secrets.token_hex(8)}"
"""Stands for the folder where nothing is kept; nobody makes it."""

_folder: Path | None = None


class _OwnFiles:
    """In place of the attribute of Ultralytics' data sets that says where the pixels of each image are kept."""

    def __get__(self, dataset: Any, owner: type | None = None) -> Any:
        return self if dataset is None else vars(dataset)[_NAME]

    def __set__(self, dataset: Any, files: list[Path]) -> None:
        folder = _folder or _NOWHERE
        names = (hashlib.sha256(os.fsencode(image)).hexdigest() for image in dataset.im_files)
        vars(dataset)[_NAME] = [folder / f"{name}.npy" for name in names]


def keep_in(folder: Path) -> None:
    """Let data sets that are opened from now on keep pixels in a folder of this process, until :func:`drop`."""
    global _folder
    if folder != _folder:
        drop()
        folder.mkdir(parents=True, exist_ok=True)
        _folder = folder


def drop() -> None:
    """Remove what was kept."""
    global _folder
    if _folder is not None:
        shutil.rmtree(_folder, ignore_errors=True)
    _folder = None


def install() -> None:
    """Let Ultralytics keep pixels here."""
    setattr(BaseDataset, _NAME, _OwnFiles())
