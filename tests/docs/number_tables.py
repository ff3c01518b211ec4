"""Comparison of tables in Markdown files with the CSV files that their numbers come from."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dfssd.benchmark.rows import COLUMNS, Row
from dfssd.benchmark.summary import shares, summaries
from dfssd.benchmark.table import means_row
from dfssd.config import parse_value

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?")
NO_VALUE = "-"


@dataclass(frozen=True)
class Value:
    """What a printed number must agree with.

    Attributes:
        exact: The value computed from the file.
        error: Largest error of it, since the file holds rounded numbers.
    """

    exact: float
    error: float = 0.0

    def __sub__(self, other: Value) -> Value:
        return Value(self.exact - other.exact, self.error + other.error)

    def __truediv__(self, other: Value) -> Value:
        quotient = self.exact / other.exact
        relative = self.error / abs(self.exact or 1) + other.error / abs(other.exact)
        return Value(quotient, abs(quotient) * relative)

    def percent(self) -> Value:
        return Value(100 * self.exact, 100 * self.error)

    def agrees(self, text: str) -> bool:
        """Whether ``text`` is this value, rounded to the digits that it shows."""
        decimals = len(text.partition(".")[2])
        return abs(float(text.replace(",", "")) - self.exact) <= 0.5 * 10**-decimals + self.error + 1e-9


class Source:
    """The rows of a CSV file, found by some of their values.

    Args:
        name: Its name without suffix.
        folder: Where it lies.
        digits: Decimals that its fractions were rounded to; None: as many as it shows in a column.
    """

    def __init__(self, name: str, folder: Path = ROOT / "benchmarks", digits: int | None = None):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))
        shown = {column: max(len(row[column].partition(".")[2]) for row in self.rows) for column in self.rows[0]}
        self.decimals = {column: digits if digits and most else most for column, most in shown.items()}

    def text(self, column: str, **where: str) -> str:
        [row] = [row for row in self.rows if all(row[key] == value for key, value in where.items())]
        return row[column]

    def get(self, column: str, **where: str) -> Value:
        decimals = self.decimals[column]
        return Value(float(self.text(column, **where)), 0.5 * 10**-decimals if decimals else 0.0)


def intervals(name: str) -> dict[str, list[str]]:
    """Cells of the generated table ``benchmarks/<name>.md``: first cell -> all cells, without the mark of one seed."""
    text = (ROOT / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip().rstrip("*") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    return {row[0]: row for row in rows}


@dataclass(frozen=True)
class Shape:
    """What a cell of several numbers must be.

    Attributes:
        text: The cell with ``#`` in place of each number.
        values: The numbers.
    """

    text: str
    values: list[Value]


Expected = Shape | list[Value] | str | None
"""Of a cell: its shape, or values with " / " between them, or its whole text, or None: not checked."""
Check = Callable[[str, str], Expected]
"""Row key and column header -> what the cell must be."""


@dataclass(frozen=True)
class Table:
    """How a table is compared.

    Attributes:
        source: Name of the CSV file.
        rows: Key of each row, in their order.
        check: See :data:`Check`.
        unchecked: Headers of columns that no file holds.
    """

    source: str
    rows: tuple[str, ...]
    check: Check
    unchecked: tuple[str, ...] = ()


def cells_of(source: Source, name: str) -> Check:
    """Tables of a grid: metrics, differences with intervals, share of the way from baseline to oracle."""
    generated = intervals(name)
    columns = {
        "mAP50-95": "map50_95",
        "test mAP50-95": "map50_95",
        "val mAP50-95": "val_map50_95",
        "mAP50": "map50",
        "test AP50": "map50",
        "batches = optimizer steps": "steps",
    }

    def check(row: str, header: str) -> Expected:
        if header in columns:
            if header.startswith("batches"):
                assert source.get("steps", recipe=row) == source.get("optimizer_steps", recipe=row)
            return [source.get(columns[header], recipe=row)]
        score = {name: source.get("map50_95", recipe=name) for name in {row, "baseline", "ultralytics"}}
        if header in {"vs. baseline", "vs. none", "vs. Ultralytics"}:
            other = "ultralytics" if header == "vs. Ultralytics" else "baseline"
            text = generated[row][generated["cell"].index(f"against {other}")]
            if row == other:
                return NO_VALUE
            assert (score[row] - score[other]).agrees(text.split()[0])
            return text
        assert header == "baseline to oracle"
        whole = source.get("map50_95", recipe="oracle") - score["baseline"]
        return NO_VALUE if row == "baseline" else [((score[row] - score["baseline"]) / whole).percent()]

    return check


def means_of(source: Source, labeled: str) -> Check:
    """Tables of a grid over several seeds: ``<grid>-means.csv`` has all numbers, intervals included.

    Args:
        source: That file, of six decimals.
        labeled: The label share, as it is written there.
    """
    columns = {"val mAP50-95": "val_map50_95", "test mAP50-95": "map50_95", "mAP50-95": "map50_95", "mAP50": "map50"}
    gains = {"val vs. baseline": "val_gain", "vs. baseline": "gain", "vs. Ultralytics": "ultralytics_gain"}

    def check(row: str, header: str) -> Expected:
        where = {"recipe": row, "labeled": labeled}

        def shape(text: str, *names: str, percent: bool = False) -> Shape:
            values = [source.get(name, **where) for name in names]
            return Shape(text, [value.percent() if percent else value for value in values])

        def known(name: str) -> bool:
            return source.text(name, **where) != ""

        if header == "seeds":
            return shape("#", "seeds")
        if header.startswith("batches"):
            assert source.text("steps", **where) == source.text("optimizer_steps", **where)
            return shape("#", "steps")
        if column := columns.get(header):
            return shape("# ± #", column, f"{column}_sd") if known(f"{column}_sd") else shape("#", column)
        if gain := gains.get(header):
            if not known(gain):
                return NO_VALUE
            counted = (f"{gain}_above", f"{gain}_seeds")
            if not known(f"{gain}_low"):
                return shape("# (# of #)", gain, *counted)
            return shape("# [#, #] (# of #)", gain, f"{gain}_low", f"{gain}_high", *counted)
        assert header == "baseline to oracle"
        if not known("recovered"):
            return NO_VALUE
        if not known("recovered_low"):
            return shape("# %", "recovered", percent=True)
        return shape("# % [# %, # %]", "recovered", "recovered_low", "recovered_high", percent=True)

    return check


def marked(text: str) -> dict[str, tuple[str, list[list[str]]]]:
    """Tables with a source: name -> (CSV file, rows of cells, the header first)."""
    found = {}
    for source, name, table in re.findall(r"<!-- from benchmarks/([\w-]+)\.csv: ([\w-]+) -->\n((?:\|.*\n)+)", text):
        header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        seen: set[str] = set()
        for column, title in enumerate(header):  # the second column of a title belongs to the second group
            header[column] = f"{title}, grouped" if title in seen else title
            seen.add(title)
        found[name] = (source, [header, *rows])
    return found


def disagreements(text: str, name: str, table: Table) -> list[str]:
    """Differences between a marked table and its source."""
    source, [header, *rows] = marked(text)[name]
    bad = [] if source == table.source else [f"comes from {source}, not {table.source}"]
    if len(rows) != len(table.rows):
        return [*bad, f"{len(rows)} rows, not {len(table.rows)}"]
    for key, cells in zip(table.rows, rows):
        for title, cell in list(zip(header, cells))[1:]:
            if title in table.unchecked:
                continue
            cell, expected = cell.replace("*", "").removesuffix(" %"), table.check(key, title)
            if isinstance(expected, str):
                good = cell == expected
            else:
                assert expected is not None
                shape = expected if isinstance(expected, Shape) else Shape(" / ".join("#" * len(expected)), expected)
                numbers = NUMBER.findall(cell)
                good = NUMBER.sub("#", cell) == shape.text.removesuffix(" %") and all(
                    value.agrees(number) for number, value in zip(numbers, shape.values, strict=True)
                )
            if not good:
                bad.append(f"{key}, {title}: {cell}, not {expected}")
    return bad


def recomputed(source: Source, means: Source) -> list[str]:
    """What the rows of ``<grid>-means.csv`` have that does not follow from those of ``<grid>.csv``.

    The intervals of one seed are a bootstrap over the test images, which are in neither.
    """
    numbers = [
        column for column in source.rows[0] if column in {"seed", "steps", "optimizer_steps"} or "map50" in column
    ]
    rows = []
    for row in source.rows:
        values = {**dict.fromkeys(COLUMNS[3:]), **{key: parse_value(row[key]) for key in numbers}}
        rows.append(Row(row["recipe"], parse_value(row["labeled"]), int(row["seed"]), values))
    cells = [row["recipe"] for row in means.rows if row["recipe"] != "teacher"]
    bad = []
    expected = [
        means_row(line) for share in shares(rows) for line in summaries(rows, share, list(dict.fromkeys(cells)))
    ]
    if len(expected) != len(means.rows):
        return [f"{len(means.rows)} rows, not {len(expected)}"]
    for row, own in zip(means.rows, expected):
        for column, value in own.items():
            if column.endswith(("_low", "_high")) and own.get(f"{column.rpartition('_')[0]}_seeds") == 1:
                continue
            shown = row[column]
            same = shown == str(value if value is not None else "")
            error = 1e-3 if column.startswith("recovered") else 1e-5  # a quotient by a small distance
            if not same and not (isinstance(value, float) and shown and abs(float(shown) - value) <= error):
                bad.append(f"{row['recipe']}, {column}: {shown}, not {value}")
    return bad
