"""Reading the recorded tables of a run, and writing tables and numbers for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file, or an empty dict if it is missing or not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_csv(path: Path) -> dict[str, list[float]]:
    """Columns of an Ultralytics results.csv; complete rows only, NaN where a value is no number."""
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


def csv_text(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, *, show: Callable[[float], Any]
) -> str:
    """A CSV table with a header; a cell is empty where a row has None or nothing.

    Args:
        rows: Column -> value; columns that are not asked for are left out.
        columns: Names of the columns; None: those of the first row. Without rows there is then no header either.
        show: How a fraction is written.
    """
    text = io.StringIO()
    names = list(rows[0] if rows else ()) if columns is None else columns
    if names:
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: show(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def number(value: Any, digits: int = 3) -> str:
    """A number for a table: fractions with ``digits``, whole numbers and texts as they are, - for nothing."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def small(value: float | None) -> str:
    """A difference with two digits; None stands for one that is not finite (JSON has no word for it)."""
    return "not a finite number" if value is None else f"{value:.2g}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as whole percent."""
    return "-" if share is None else f"{share:.0%}"


def minutes(seconds: float | None) -> str:
    """A duration in seconds or minutes, whichever reads better."""
    if seconds is None:
        return "-"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table; | inside a cell would end it."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def picture(drawn: bool, name: str, caption: str) -> list[str]:
    """Lines that show ``plots/<name>.png``, if it was drawn."""
    return ["", f"![{caption}](plots/{name}.png)"] if drawn else []
