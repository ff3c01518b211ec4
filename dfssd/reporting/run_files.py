"""Files of a run besides its record, from which the report of any task is made."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfssd.results.sections import Role

Curves = Mapping[str, Sequence[float]]
"""Columns of a results.csv: name -> one value per epoch; NaN where a value is missing."""


@dataclass(frozen=True)
class RunFiles:
    """Files of a run folder, read once; text and figures of a report use only these.

    Attributes:
        folder: The run folder.
        weights_mb: Size of each ``weights/<role>.pt`` [10^6 bytes].
    """

    folder: Path
    weights_mb: Mapping[Role, float]

    @property
    def plots(self) -> Path:
        """Folder of the figures."""
        return self.folder / "plots"


def weight_sizes(folder: Path) -> dict[Role, float]:
    """Role -> size of its checkpoint in the run ``folder`` [10^6 bytes]."""
    return {file.stem: file.stat().st_size / 1e6 for file in sorted((folder / "weights").glob("*.pt"))}


def read_csv(path: Path) -> dict[str, list[float]]:
    """Columns of an Ultralytics results.csv; complete rows only, NaN where a value is not a number."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as f:
        rows = [row for row in csv.DictReader(f, skipinitialspace=True) if None not in row.values()]
    names = [name for name in (rows[0] if rows else ()) if name]
    return {name.strip(): [_float(row[name]) for row in rows] for name in names}


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
