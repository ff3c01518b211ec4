"""Numbers and tables for people; ``-`` stands for an unknown value."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dfssd.results.sections import Gain
from dfssd.trust.texts import in_table

UNKNOWN = "-"


def csv_text(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, *, show: Callable[[float], Any]
) -> str:
    """A CSV table with a header; a cell is empty where a row has None or nothing.

    Args:
        rows: Column -> value; columns that are not in ``columns`` are left out.
        columns: Names of the columns; None: those of the first row. Without rows there is then no header either.
        show: How a fraction is written.
    """
    text = io.StringIO()
    names = list(rows[0] if rows else ()) if columns is None else columns
    if names:
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: show(v) if isinstance(v, float) else in_table(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def format_number(value: float | str | None, digits: int = 3) -> str:
    """A number for a table: fractions with ``digits`` decimals, whole numbers and texts as they are."""
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def format_significant(value: float | None) -> str:
    """A number of any size with two significant digits."""
    return UNKNOWN if value is None else f"{value:.2g}"


def format_difference(value: float | None) -> str:
    """A measured difference with two significant digits; None is one that is not finite (JSON cannot express it)."""
    return "not a finite number" if value is None else format_significant(value)


def format_gain(student: float | None, baseline: float | None) -> str:
    """How much higher the score of the student is, with its sign."""
    return UNKNOWN if student is None or baseline is None else f"{student - baseline:+.3f}"


def format_interval(gain: Gain | None) -> str:
    """A difference with its sign, and its interval if it is known."""
    if gain is None:
        return UNKNOWN
    if gain.low is None or gain.high is None:
        return f"{gain.value:+.3f}"
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def format_count(count: int | None) -> str:
    """A whole number, which may be a large one."""
    return UNKNOWN if count is None else f"{count:,}"


def format_share(share: float | None) -> str:
    """A share in [0, 1] as whole percent."""
    return UNKNOWN if share is None else f"{share:.0%}"


def format_range(low: float, high: float | None) -> str:
    """A class of size [px]; None: without an upper limit."""
    return f"{low:g} px and more" if high is None else f"{low:g} to {high:g} px"


def format_duration(seconds: float | None) -> str:
    """A duration in seconds or minutes, whichever reads better."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table; | inside a cell would end it."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
