"""Folders that are written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dfssd.errors import UserError


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill; it becomes ``out`` if the block succeeds, and is removed if not.

    Raises:
        UserError: ``out`` exists and holds something, or it cannot be written.
    """
    out = Path(os.path.abspath(out.expanduser()))
    check_free(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.is_dir():
            out.rmdir()  # empty
        os.replace(partial, out)
    except OSError as e:
        raise UserError(f"cannot write {out}: {e.strerror or e}; free some space or choose another out=") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raise :class:`UserError` if ``out`` exists and holds something."""
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as e:
        raise UserError(f"out={out} cannot be read: {e.strerror or e}; choose another folder") from e
    if taken:
        raise UserError(f"out={out} exists and is not empty; choose another folder, nothing is overwritten")
