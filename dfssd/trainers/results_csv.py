"""The ``results.csv`` of a training, as Ultralytics writes it: a row for each epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_results_csv(path: Path) -> list[dict[str, str]]:
    """Complete rows of an Ultralytics ``results.csv``, column name -> text; half-written rows are left out."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as f:
        rows = [{(k or "").strip(): v for k, v in row.items()} for row in csv.DictReader(f)]
    return [row for row in rows if row.get("epoch") and "" not in row and None not in row.values()]


def columns_of(path: Path) -> dict[str, list[float]]:
    """Its columns, name -> a number for each complete row; NaN in epochs without a value."""
    rows = read_results_csv(path)
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}


def fit_columns(path: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an epoch in the columns that the file has already, which another version may have begun.

    Args:
        path: The file; without one the values are taken as they are.
        metrics: Column name -> value; what is missing becomes NaN, what is new has no column.
    """
    rows = read_results_csv(path)
    names = [name for name in rows[0] if name not in {"epoch", "time"}] if rows else list(metrics)
    return {name: metrics.get(name, math.nan) for name in names}
