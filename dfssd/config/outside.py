"""Distillation terms from outside this package, by their names alone: nothing is imported to know one.

A term is named by where it lies, ``my_module:MyTerm``, or by the name that an installed package gives it in the group
``dfssd.terms`` of its entry points.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "dfssd.terms"
"""The group of entry points."""

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


def installed() -> Mapping[str, EntryPoint]:
    """The terms of installed packages: name -> where it lies. Names that cannot be typed as a key are left out."""
    return _installed(tuple((folder, _changed(folder)) for folder in sys.path))


@lru_cache(maxsize=8)
def _installed(folders: tuple[tuple[str, int], ...]) -> Mapping[str, EntryPoint]:
    """The same, read once for each state of ``sys.path``: the metadata of all packages takes far longer than a line."""
    return {point.name: point for point in entry_points(group=GROUP) if re.fullmatch(r"\w+", point.name)}


def _changed(folder: str) -> int:
    """When something was installed in this folder last, in nanoseconds; 0 if it is not there."""
    with suppress(OSError):
        return os.stat(folder or os.curdir).st_mtime_ns
    return 0


def find(name: str) -> EntryPoint | None:
    """Where the term of this name lies; None if it is no name of a term from outside."""
    if _REFERENCE.fullmatch(name):
        return EntryPoint(label(name), name, GROUP)
    return installed().get(name)


def label(name: str) -> str:
    """What a term is called in tables and columns: without the module."""
    return name.rpartition(":")[2]
