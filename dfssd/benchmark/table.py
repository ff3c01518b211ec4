"""The table of a benchmark: rows and means as CSV, means and differences as Markdown, and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.benchmark.chart import draw
from dfssd.benchmark.grid import BASE, ORACLE, TEACHER
from dfssd.benchmark.rows import COLUMNS, PER_CLASS, Row
from dfssd.benchmark.summary import PEER, Summary, shares, summaries
from dfssd.files import write_text
from dfssd.reporting.tables import UNKNOWN, csv_text, format_number, markdown_table
from dfssd.results.sections import SCRATCH
from dfssd.wording import counted


def write_tables(
    rows: Sequence[Row], name: str, out: Path, *, cells: Sequence[str], commands: Sequence[str]
) -> list[Path]:
    """Write ``<name>.csv``, ``<name>-means.csv``, ``.md`` and ``.png`` (if there are rows) to ``out``, each whole.

    Args:
        rows: Of finished runs.
        name: Name of the grid.
        out: Folder.
        cells: Cells of the grid in their order, run or not.
        commands: The command lines of the grid, for publication.

    Returns:
        The files.
    """
    table, means_file, page, chart = (out / f"{name}{end}" for end in (".csv", "-means.csv", ".md", ".png"))
    rows = sorted(rows, key=lambda r: (_order(r.recipe, cells), float(r.labeled), r.seed))
    write_text(table, csv_text(*csv_rows(rows), show=lambda value: round(value, 6)))
    tables = {labeled: summaries(rows, labeled, cells) for labeled in shares(rows)}
    means = [means_row(line) for lines in tables.values() for line in lines]
    write_text(means_file, csv_text(means, show=lambda value: round(value, 6)))
    text = markdown(rows, tables, name, cells=cells, commands=commands)
    write_text(page, "\n".join(text) + "\n")
    if not rows:
        return [table, means_file, page]
    draw({share_text(labeled): lines for labeled, lines in tables.items()}, chart)
    return [table, means_file, page, chart]


def _order(recipe: str, cells: Sequence[str]) -> int:
    order = [TEACHER, SCRATCH, *(cell for cell in cells if cell != ORACLE), ORACLE]
    return order.index(recipe)


def csv_rows(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows by column, and the columns: :data:`COLUMNS` and one per class."""
    cells = [
        {
            "recipe": row.recipe,
            "labeled": row.labeled,
            "seed": row.seed,
            **row.values,
            **{f"{PER_CLASS}{name}": value for name, value in row.per_class.items()},
        }
        for row in rows
    ]
    return cells, [*COLUMNS, *dict.fromkeys(f"{PER_CLASS}{name}" for row in rows for name in row.per_class)]


def means_row(line: Summary) -> dict[str, Any]:
    """A line of the table by column, with full digits; None where something is unknown."""
    row: dict[str, Any] = {"recipe": line.cell, "labeled": line.labeled, "seeds": len(line.rows)}
    for key, mean in (("val_map50_95", line.val), ("map50_95", line.test), ("map50", line.map50)):
        row |= {key: mean and mean.value, f"{key}_sd": mean and mean.sd}
    for key in ("steps", "optimizer_steps"):
        known = line.known(key)
        row[key] = known[0] if len(known) == 1 else " to ".join(map(str, (known[0], known[-1]))) if known else None
    for key, gain in (("val_gain", line.val_gain), ("gain", line.gain), (f"{PEER}_gain", line.peer_gain)):
        row[key] = gain and gain.value
        row |= {f"{key}_{part}": gain and getattr(gain, part) for part in ("low", "high", "above", "seeds")}
    share = line.recovered
    return row | {
        "recovered": share and share.value,
        "recovered_low": share and share.low,
        "recovered_high": share and share.high,
    }


def share_text(labeled: float) -> str:
    """``10 % of the labels`` for 0.1, ``200 labeled images`` for 200."""
    return f"{labeled * 100:g} % of the labels" if isinstance(labeled, float) else counted(labeled, "labeled image")


def markdown(
    rows: Sequence[Row],
    tables: Mapping[float, Sequence[Summary]],
    name: str,
    *,
    cells: Sequence[str],
    commands: Sequence[str],
) -> list[str]:
    """The page as lines of Markdown: arguments as those of :func:`write_tables`, and the table of each label share."""
    what = (
        "Scores on the validation images (val), which decide, and on the test images, which no training and no "
        "selection of an epoch has used."
    )
    lines = [f"# {name}", "", what]
    for labeled, table in tables.items():
        lines += ["", f"## {share_text(labeled)}", "", *_share_table(table)]
    if not rows:
        lines += ["", "No run has finished yet."]
    lines += ["", *_footnotes(rows, [line for table in tables.values() for line in table])]
    present = {row.recipe for row in rows}
    if missing := [cell for cell in cells if cell not in present]:
        lines += ["", f"Not run: {', '.join(missing)}."]
    if rows:
        lines += ["", f"![{name}]({name}.png)"]
    return [*lines, "", "## How it was made", "", "```", *commands, "```", "", *_facts(rows, name)]


def _share_table(lines: Sequence[Summary]) -> list[str]:
    """The lines of the table of one label share."""
    header = ["cell", "seeds", "val mAP50-95", "val against baseline", "test mAP50-95", "test mAP50"]
    header += ["batches / optimizer steps", "against baseline", f"against {PEER}", "baseline to oracle recovered"]
    table = []
    for line in lines:
        steps = " / ".join(_range(line.known(key)) for key in ("steps", "optimizer_steps"))
        cells = [line.val, line.val_gain, line.test, line.map50, steps, line.gain, line.peer_gain, line.recovered]
        table.append([line.cell, len(line.rows), *(UNKNOWN if cell is None else cell for cell in cells)])
    return markdown_table(header, table)


def _range(known: Sequence[int]) -> str:
    if not known:
        return UNKNOWN
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _footnotes(rows: Sequence[Row], table: Sequence[Summary]) -> list[str]:
    """What the numbers are."""
    gains = [gain for line in table for gain in (line.gain, line.val_gain, line.peer_gain) if gain]
    kinds = {gain.kind for gain in gains}
    lines = [
        "val is the best validation of each training, which chose the weights that were tested.",
        "± is the standard deviation over the seeds. Differences are in mAP50-95, on test unless val is named.",
    ]
    if "seeds" in kinds:
        lines.append(
            "[low, high] is the 95 % confidence interval of the mean difference, paired by seed (Student's t); a seed "
            "determines the training, and the split if it is drawn. (n of m): above 0 in n of m seeds."
        )
    if "images" in kinds:
        images = sorted({row.images for row in rows if row.images})
        sample = f" ({format_number(images[0]) if len(images) == 1 else 'several'} test images)" if images else ""
        lines.append(
            "[low, high]* is from one seed: a paired bootstrap over the test images (1,000 draws, 95 %). It covers "
            f"which images happened to be in the test set{sample}, **not the randomness of the training**."
        )
    lines += _oracle_notes(table)
    if any(row.values.get("chosen") == BASE for row in rows):
        cells = sorted({row.recipe for row in rows if row.values.get("chosen") == BASE})
        lines.append(f"In {', '.join(cells)} the guard kept the baseline's weights in at least one run.")
    return [f"- {line}" for line in lines]


def _oracle_notes(table: Sequence[Summary]) -> list[str]:
    """What the oracle is, and what a share of the way to it."""
    lines = []
    if any(line.recovered for line in table):
        lines.append("Recovered: the mean gain over the baseline / the mean distance from baseline to oracle.")
    if any(line.recovered and len(line.rows) > 1 for line in table):
        lines.append(
            "Its interval is Fieller's for a ratio of means paired by seed, left out where the seeds do not bound it."
        )
    if any(line.cell == ORACLE for line in table):
        lines.append("The oracle is the baseline's network trained on all labels.")
    return lines


def _facts(rows: Sequence[Row], name: str) -> list[str]:
    """Machine, versions and time."""
    if not rows:
        return []
    lines = [
        f"The command, the commit and the numbers of each run are in [{name}.csv]({name}.csv), those of the table with "
        f"more digits in [{name}-means.csv]({name}-means.csv).",
        "",
    ]
    for key, label in (
        ("machine", "machine"), ("device", "device"), ("dfssd", "dfssd"), ("ultralytics", "Ultralytics"),
        ("torch", "torch"), ("git", "commit"),
    ):  # fmt: skip
        if values := list(dict.fromkeys(str(row.values[key]) for row in rows if row.values.get(key))):
            lines.append(f"- {label}: {', '.join(values)}")
    seconds = [row.values["seconds"] for row in rows if row.values.get("seconds") is not None]
    if seconds:
        lines.append(f"- trainings: {sum(seconds) / 3600:.1f} hours in total")
    return lines
