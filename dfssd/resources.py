"""The files of dfssd that are not code: ``cfg/`` (defaults and recipes) and ``data/`` (data set cards).

In a checkout they lie beside the package. A wheel carries them inside it, since an installed package must not put
folders called ``cfg`` and ``data`` among everybody else's. No other module knows where they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PACKAGE = Path(__file__).resolve().parent
INSTALLED = PACKAGE / "_resources"
"""Where a wheel has them; pyproject.toml puts them there."""


def source_tree() -> Path | None:
    """The root of the source tree (a checkout or an unpacked archive) that this package is run from.

    None for an installed package, whatever folder it is installed into.
    """
    root = PACKAGE.parent
    return root if not INSTALLED.is_dir() and (root / "pyproject.toml").is_file() else None


def folder(name: Literal["cfg", "data"]) -> Path:
    """The folder ``cfg`` or ``data``; whoever reads a file in it says so when it is missing."""
    return (source_tree() or INSTALLED) / name
