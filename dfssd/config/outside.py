"""Distillation terms from outside this package, by their names alone: nothing is imported to know one.

A term is named by where it lies, ``my_module:MyTerm``, or by the name that an installed package gives it in the group
``dfssd.terms`` of its entry points.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

GROUP = "dfssd.terms"
"""The group of entry points."""

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


def installed() -> Mapping[str, EntryPoint]:
    """The terms of installed packages: name -> where it lies. Names that cannot be typed as a key are left out."""
    return {point.name: point for point in entry_points(group=GROUP) if re.fullmatch(r"\w+", point.name)}


def find(name: str) -> EntryPoint | None:
    """Where the term of this name lies; None if it is no name of a term from outside."""
    if _REFERENCE.fullmatch(name):
        return EntryPoint(label(name), name, GROUP)
    return installed().get(name)


def label(name: str) -> str:
    """What a term is called in tables and columns: without the module."""
    return name.rpartition(":")[2]
