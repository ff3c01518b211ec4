"""Reading of a source as an import does, without writing one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfssd.datasets.assembly import Assembly, ReadingRules
from dfssd.datasets.images.facts import FactStore, probe_files
from dfssd.datasets.material import Material, of_folder, of_yaml
from dfssd.datasets.sources import Source


def read_folder(root: Path, names: Sequence[str] | None = None, missing: np.ndarray | None = None) -> Source:
    """What a folder holds."""
    return _read(of_folder(root, names, ()), names, missing)


def read_yaml(file: Path, names: Sequence[str] | None = None, missing: np.ndarray | None = None) -> Source:
    """What a data set YAML lists."""
    return _read(of_yaml(file, names), names, missing)


def _read(material: Material, names: Sequence[str] | None, missing: np.ndarray | None) -> Source:
    facts = dict(zip(material.images, probe_files(FactStore(None), material.images), strict=True))
    rules = ReadingRules(names=None if names is None else tuple(names), missing=missing)
    return Assembly(material, rules, facts).result()
