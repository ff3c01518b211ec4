"""Atomic writing: every file appears under its final name only when it is complete.

A temporary file in the same folder is written, flushed to disk and renamed, so a killed process leaves either the old
file or the new one, never half of one (``os.replace`` is atomic on POSIX and on Windows).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from dfssd.errors import UserError
from dfssd.trust.limits import yaml_problem

_TEMPORARY = re.compile(r"\.(?P<stem>[^/\\\s]+)\.\d+\.part(?P<suffix>\.\w+)|writing_(?P<name>[^/\\\s]+)")

_OWN = re.compile(r"\..+\.(?P<pid>\d+)\.part(\.\w+)?$")
"""A temporary name, with the process that made it."""

_ASIDE = "writing_"
"""How the temporary name of a checkpoint begins."""

FULL = {errno.ENOSPC, errno.EDQUOT}
DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
"""Errors of a file system: no room, and no right to write."""


def temporary_name(path: Path) -> Path:
    """Where a file is written before it is renamed to ``path``: by this process, in the same folder."""
    return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def aside(path: Path) -> Path:
    """The same for a checkpoint, which a later process of the same training may complete."""
    return path.with_name(f"{_ASIDE}{path.name}")


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that have ended have left half written in a folder and below it.

    Checkpoints :func:`aside` are removed in any case: the caller is the only process that may write some there.
    """
    for path in list(folder.rglob("*")):
        own = _OWN.match(path.name)
        if (own and not psutil.pid_exists(int(own["pid"]))) or path.name.startswith(_ASIDE):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def final_names(text: str) -> str:
    """``text`` with the names that files will have in place of those that they are written under."""
    return _TEMPORARY.sub(lambda found: found["name"] or f"{found['stem']}{found['suffix']}", text)


def from_here(path: Path) -> str:
    """A path as it is typed in the current folder: relative below it, else absolute."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; rename it to ``path`` if the block succeeds, remove it otherwise.

    The temporary name keeps the suffix of ``path``, since many writers choose the format by it.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            yield temporary
            with open(temporary, "rb+") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as e:
        if e.errno in FULL | DENIED:
            raise UserError(f"cannot write {path}: {e.strerror}; free some space, or choose another place") from e
        raise


@contextlib.contextmanager
def locked(path: str | Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of the file ``path`` during the block; the system releases it when the process ends, however.

    Args:
        path: The lock: an empty file, made if needed, and left behind, since removing it would give two processes the
            same lock.
        wait: Until another process releases it.

    Yields:
        Whether it is held; False only without ``wait``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        held = _lock(file.fileno())
        while wait and not held:
            time.sleep(0.1)
            held = _lock(file.fileno())
        try:
            yield held
        finally:
            if held:  # closing is not enough: a process that was forked meanwhile has a copy of the open file
                _unlock(file.fileno())


def _unlock(number: int) -> None:
    """Give up the lock of an open file, in whatever process."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(number, fcntl.LOCK_UN)


def _lock(number: int) -> bool:
    """Lock an open file that no other process has locked, until it is closed; whether it is locked now."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        if e.errno not in {errno.EAGAIN, errno.EACCES, errno.EDEADLK}:
            raise
        return False
    return True


_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where PyYAML was built with it: some ten times as fast."""


def load_yaml(path: Path) -> object:
    """The content of a YAML file, UTF-8 with or without a byte-order mark.

    Raises:
        UserError: It cannot be read, is not valid YAML (the message names the line), or makes too many values of its
            aliases.
    """
    try:
        return _construct(path)
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read {path}: {e}") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = path if mark is None else f"{path}:{mark.line + 1}"
        problem = getattr(e, "problem", None) or type(e).__name__
        raise UserError(f"{where}: is not valid YAML ({problem}); correct it") from e
    except (ValueError, RecursionError) as e:  # a date that does not exist, or thousands of open brackets
        raise UserError(f"{path}: is not valid YAML ({str(e).splitlines()[0]}); correct it") from e


def _construct(path: Path) -> object:
    loader = _YAML(path.read_text(encoding="utf-8-sig"))
    try:
        root = loader.get_single_node()
        if problem := yaml_problem(root):
            raise UserError(f"{path}: {problem}")
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, empty for an empty file.

    Raises:
        UserError: It cannot be read, is not valid YAML, or holds something else.
    """
    tree = load_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return tree


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file, or an empty dict if it is missing or not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, its line ends unchanged, to ``path``, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all; NaN and infinity are errors."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is no UTF-8: its bytes as escape sequences, which can be read again
        text = json.dumps(value, indent=1, allow_nan=False)
    write_text(path, text + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write ``value`` as YAML in its own key order to ``path``, whole or not at all."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def copy_atomically(source: str | Path, target: str | Path) -> None:
    """Copy a file, whole or not at all."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file where the file system allows it; otherwise copy it, whole or not at all.

    Raises:
        OSError: Neither is possible.
    """
    try:
        os.link(source.resolve(), target)
    except OSError:
        temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def file_digest(path: str | Path) -> str:
    """SHA-256 of the content of a file in hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
