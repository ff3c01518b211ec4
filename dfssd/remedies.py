"""What a machine lacks, told from errors, whoever has raised them: in one line, with what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dfssd.errors import UserError
from dfssd.files import DENIED, FULL, from_here

_LOST = {errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EHOSTDOWN}
"""Errors of a file system that is no longer there."""

_OF_TORCH = ("pytorchstreamwriter", "inline_container", "no space left", "parent directory", "cannot be opened")
"""Words of the errors of ``torch.save``, which do not say more than that writing has failed."""


def storage_problem(error: BaseException, folder: Path, *, elsewhere: bool = True) -> str | None:
    """What is wrong with the place of files, and what to do, if an error, or one that has led to it, comes from that.

    Args:
        error: Whatever was raised while files in ``folder`` were read and written.
        folder: Where.
        elsewhere: Files in other places count, too; if not, only where a disk is full.

    Returns:
        The start of a message; None for an error of another kind.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            if found := _of_system(cause, folder, elsewhere=elsewhere):
                return found
        elif isinstance(cause, RuntimeError) and any(word in str(cause).lower() for word in _OF_TORCH):
            return _as_it_is(folder)
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def explain_storage(folder: Path | None = None) -> Iterator[None]:
    """Turn errors about the place of files into one line.

    Args:
        folder: Where files are read and written; None: the current folder.

    Raises:
        UserError: Of such an error; others pass.
    """
    try:
        yield
    except (OSError, RuntimeError) as e:
        if (problem := storage_problem(e, folder or Path.cwd())) is None:
            raise
        raise UserError(f"{problem}, and start the same line again") from e


def _of_system(error: OSError, folder: Path, *, elsewhere: bool) -> str | None:
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else folder
    inside = _inside(place, folder)
    if error.errno in FULL:
        disk = folder if inside else place.parent
        return f"the disk of {disk} is full ({error.strerror}{_free(disk)}): make room"
    if not inside and not elsewhere:
        return None
    if error.errno in DENIED:
        return f"{place} cannot be read or written ({error.strerror}): make it accessible"
    if error.errno in _LOST:
        return f"{place} cannot be reached ({error.strerror}): bring its disk back"
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and inside and not place.parent.is_dir():
        return f"{place.parent if folder.is_dir() else folder} has vanished: restore it"
    return None


def _as_it_is(folder: Path) -> str:
    """What hinders writing in a folder, by what is seen there."""
    if not folder.is_dir():
        return f"{folder} has vanished: restore it"
    if not os.access(folder, os.W_OK):
        return f"{folder} cannot be written: make it accessible"
    return f"a checkpoint in {folder} cannot be written, as on a full disk{_free(folder)}: make room"


def _free(folder: Path) -> str:
    """The free space of a disk; empty if it is not known."""
    try:
        return f", {shutil.disk_usage(folder).free / 2**20:.1f} MiB free"
    except OSError:
        return ""


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


@contextlib.contextmanager
def explain_resource_errors(folder: Path) -> Iterator[None]:
    """Turn errors about exhausted memory, the disk, and divergence into one line with the remedy.

    Args:
        folder: The run, which the line says how to continue.

    Raises:
        UserError: Of any of these; other errors pass.
    """
    again = f"then go on with: dfssd resume={from_here(folder)}"
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        text = str(e).lower() if isinstance(e, RuntimeError) else ""
        if "nan persisted" in text:
            raise UserError(f"the training does not converge ({e}): lower lr0 or the weights of the terms") from e
        if "out of memory" in text:
            raise UserError(
                f"the GPU ran out of memory: lower batch or imgsz in a new run, or free the GPU, {again}"
            ) from e
        if problem := storage_problem(e, folder):
            raise UserError(f"{problem}, {again}") from e
        raise
