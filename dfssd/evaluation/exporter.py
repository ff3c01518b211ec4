"""Ultralytics' exporter, beside a checkpoint: a disk that is full is told from a format that cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from dfssd.errors import UserError, reason
from dfssd.evaluation.settings import quiet
from dfssd.remedies import storage_problem

ROOM = 4
"""Free space that a format is not begun without, in sizes of the checkpoint: weights in 32 bits, twice. A disk that
fills up while TorchScript writes ends the process."""

_LEAST = 1 << 16
"""Free space below which a disk is full [bytes]."""


def export(copy: Path, name: str, *, task: str, **options: Any) -> Path:
    """Let Ultralytics write one format next to ``copy``.

    Raises:
        OSError, RuntimeError: There is no room, or no right to write, where the copy is.
        UserError: It cannot be written for another reason, whatever that is.
    """
    from dfssd.trust.checkpoints import open_yolo

    device = options.pop("device", "cpu")
    if shutil.disk_usage(copy.parent).free < ROOM * copy.stat().st_size:
        raise _full()
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing and deprecations: nothing that the user could act on
            return Path(open_yolo(copy, task=task).export(format=name, device=device, **options))
    # A format is written by its vendor's package, which may raise anything, even SystemExit.
    except (Exception, SystemExit) as e:
        check_storage(e, copy.parent)
        if shutil.disk_usage(copy.parent).free < _LEAST:  # some packages do not say what has hindered them
            raise _full() from e
        raise UserError(f"Ultralytics cannot write format={name}: {reason(e)}") from e


def check_storage(error: BaseException, folder: Path) -> None:
    """Raise an error on if it comes from the place of the files in a folder, which hinders all formats alike.

    Raises:
        RuntimeError: It does; :func:`~dfssd.remedies.storage_problem` finds it as the cause.
    """
    if storage_problem(error, folder, elsewhere=False):
        raise RuntimeError("an exported file could not be stored") from error


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
