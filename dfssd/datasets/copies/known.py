"""Copies and twins of a set of images, looked for once: the result depends on the contents of the files alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dfssd.datasets.copies.duplicates import Copies, find_copies, signature
from dfssd.datasets.copies.fingerprints import FINGERPRINT, describe
from dfssd.datasets.copies.twins import find_twins
from dfssd.datasets.images.facts import store_in
from dfssd.errors import UserError
from dfssd.files import write_text

FOLDER = ".copies"
"""Folder in ``data_dir`` with a file per set of images."""

_TWINS = "twins 1"
"""Raised whenever other twins can be found among the same fingerprints."""

T = TypeVar("T")


def find_copies_once(images: Sequence[Path], data_dir: Path) -> Copies:
    """As :func:`~dfssd.datasets.copies.duplicates.find_copies`, with what is known in ``data_dir``."""
    described = described_once(images, data_dir)
    return _once(
        data_dir / FOLDER / f"{signature(described)}.json",
        lambda: find_copies(images, described),
        Copies.to_text,
        lambda text: _of_size(Copies.from_text(text), len(images)),
    )


def find_twins_once(images: Sequence[Path], labeled: Sequence[bool], data_dir: Path) -> list[tuple[int, int]]:
    """As :func:`~dfssd.datasets.copies.twins.find_twins`, with what is known in ``data_dir``."""
    described = described_once(images, data_dir)
    key = hashlib.sha256(f"{_TWINS} {signature(described)} {list(labeled)}".encode()).hexdigest()
    return _once(
        data_dir / FOLDER / f"{key}.json",
        lambda: find_twins(images, labeled, described),
        json.dumps,
        lambda text: [(int(i), int(j)) for i, j in json.loads(text)],
    )


def described_once(images: Sequence[Path], data_dir: Path) -> list[bytes]:
    """As :func:`~dfssd.datasets.copies.fingerprints.describe` for each image, with what is known in ``data_dir``."""
    return store_in(data_dir).map(
        FINGERPRINT, describe, images, "Reading images", encode=bytes.hex, decode=bytes.fromhex
    )


def _of_size(copies: Copies, n: int) -> Copies:
    if len(copies.groups) != n or len(copies.families) != n:
        raise ValueError("of another set of images")
    return copies


def _once(file: Path, find: Callable[[], T], encode: Callable[[T], str], decode: Callable[[str], T]) -> T:
    """The result in ``file``, or a new one, which is then kept there if that is possible."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return decode(file.read_text(encoding="utf-8"))
    found = find()
    with contextlib.suppress(UserError, OSError):
        write_text(file, encode(found))
    return found
