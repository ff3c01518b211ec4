"""The files of dfssd that are not code: ``cfg/`` (defaults, recipes), ``data/`` (cards), and ``benchmarks/`` (grids).

In a checkout they lie beside the package. A wheel carries them inside it, since an installed package must not add
top-level folders of such names. No other module knows where they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent
INSTALLED = PACKAGE / "_resources"
"""Their place in a wheel (see pyproject.toml)."""


def source_tree() -> Path | None:
    """The root of the source tree (a checkout or an unpacked archive) that this package is run from.

    None for an installed package, whatever folder it is installed into.
    """
    root = PACKAGE.parent
    return root if not INSTALLED.is_dir() and (root / "pyproject.toml").is_file() else None


def folder(name: Literal["cfg", "data", "benchmarks"]) -> Path:
    """One of these folders; readers report a missing file."""
    return (source_tree() or INSTALLED) / name
