"""One process at a time works in the folder of a run.

The lock is one of the operating system (``flock``; on Windows ``msvcrt.locking``) on an empty file. It ends with the
process, however that ends, so that there are no stale ones. On NFS it holds between machines as far as the server has
locks; on a file system without any, the record of the owner alone decides, and knows only processes of this machine.
"""

from __future__ import annotations

import errno
import os
import platform
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from dfssd.errors import UserError
from dfssd.files import from_here, locked, read_json, remove_leftovers, write_json
from dfssd.log import LOGGER

LOCK, OWNER = ".lock", ".owner.json"
"""The locked file, and who holds it."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems that have no locks."""

PATIENCE = 15.0
"""Time in which the processes that a killed one has started notice it, and end [s]."""


class Ownership:
    """The right of this process to work in a folder; as a block it ends with it."""

    def __init__(self, folder: Path):
        """Take it, and remove what processes have left half written there.

        Raises:
            UserError: Another process has it.
        """
        self.folder, self._stack, self._held = folder, ExitStack(), True
        try:
            self._take()
        except BaseException:
            self._stack.close()
            raise
        write_json(
            folder / OWNER, {"pid": os.getpid(), "host": platform.node(), "started": psutil.Process().create_time()}
        )
        remove_leftovers(folder)

    def _take(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                held = self._stack.enter_context(locked(self.folder / LOCK, wait=False))
            except OSError as e:
                if e.errno not in NO_LOCKS:
                    raise
                LOGGER.warning(
                    f"the file system of {from_here(self.folder)} has no locks: start no second process there"
                )
                held = not _lives(read_json(self.folder / OWNER))
            if held:
                return
            owner = read_json(self.folder / OWNER)
            if time.monotonic() > deadline or _lives(owner):
                raise UserError(_in_use(self.folder, owner))
            self._stack.close()
            time.sleep(0.2)

    def __enter__(self) -> Ownership:
        """It has been taken already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Give it up."""
        self.release()

    def release(self) -> None:
        """Give it up; done twice, it changes nothing more."""
        if self._held:
            with suppress(OSError):  # of a folder that has vanished, or cannot be written
                (self.folder / OWNER).unlink(missing_ok=True)
            self._stack.close()
        self._held = False


def _lives(owner: dict[str, Any]) -> bool | None:
    """Whether the process of a record still runs; None if that is not known here."""
    if not owner or owner.get("host") != platform.node():
        return None
    try:
        return bool(abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) < 1)
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, KeyError, TypeError):  # of another user, or a damaged record
        return None


def _in_use(folder: Path, owner: dict[str, Any]) -> str:
    """The line about a folder in which another process works."""
    where = from_here(folder)
    if not owner:
        return f"{where} is in use by another process: wait until it ends, or stop it"
    who = f"process {owner.get('pid')} on {owner.get('host')}"
    if _lives(owner) is False:
        return f"{where} is in use: {who} has ended, but not all processes that it had started; end them"
    return f"{where} is in use by {who}: wait until it ends, or stop it"
