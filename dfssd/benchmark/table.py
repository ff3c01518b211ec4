"""The table of a benchmark: rows as CSV, means and differences as Markdown, and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dfssd.benchmark.rows import COLUMNS, Row, difference, mean_sd, recovered, rows_by_seed
from dfssd.files import atomic_write, write_text
from dfssd.reporting.tables import csv_text, format_number, markdown_table

TEACHER, BASELINE, ORACLE, PEER = "teacher", "baseline", "oracle", "ultralytics"
LINES = {BASELINE: "#e08214", TEACHER: "#7a7a7a", ORACLE: "#1a9850"}
POINTS = "#2166ac"


def write_tables(rows: Sequence[Row], name: str, out: Path, *, cells: Sequence[str], command: str) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.png`` to ``out``, each whole.

    Args:
        rows: Of finished runs.
        name: Name of the grid.
        out: Folder.
        cells: Cells of the grid in their order, run or not.
        command: The command of the grid, for publication.
    """
    rows = sorted(rows, key=lambda r: (_order(r.recipe, cells), float(r.labeled), r.seed))
    write_text(out / f"{name}.csv", csv_text(*csv_rows(rows), show=lambda value: round(value, 6)))
    write_text(out / f"{name}.md", "\n".join(markdown(rows, name, cells=cells, command=command)) + "\n")
    if rows:
        draw(rows, out / f"{name}.png", cells=cells)


def _order(recipe: str, cells: Sequence[str]) -> int:
    order = [TEACHER, *(cell for cell in cells if cell != ORACLE), ORACLE]
    return order.index(recipe)


def csv_rows(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows by column, and the columns: :data:`COLUMNS` and one per class."""
    cells = [
        {
            "recipe": row.recipe,
            "labeled": row.labeled,
            "seed": row.seed,
            **row.values,
            **{f"ap50_95 {name}": value for name, value in row.per_class.items()},
        }
        for row in rows
    ]
    return cells, [*COLUMNS, *dict.fromkeys(f"ap50_95 {name}" for row in rows for name in row.per_class)]


def shares(rows: Sequence[Row]) -> list[float]:
    """The label shares; that of the oracle only if there is no other."""
    return sorted({row.labeled for row in rows if row.recipe != ORACLE} or {row.labeled for row in rows})


def share_text(labeled: float) -> str:
    """``10 % of the labels`` for 0.1, ``200 labeled images`` for 200."""
    return f"{labeled * 100:g} % of the labels" if isinstance(labeled, float) else f"{labeled} labeled images"


def markdown(rows: Sequence[Row], name: str, *, cells: Sequence[str], command: str) -> list[str]:
    """The table as lines of Markdown."""
    lines = [f"# {name}", "", "Scores on the test images, which no training and no selection of an epoch has used."]
    kinds: set[str] = set()
    for labeled in shares(rows):
        table, used = _share_table(rows, labeled, cells)
        kinds |= used
        lines += ["", f"## {share_text(labeled)}", "", *table]
    if not rows:
        lines += ["", "No run has finished yet."]
    lines += ["", *_footnotes(rows, kinds)]
    present = {row.recipe for row in rows}
    if missing := [cell for cell in cells if cell not in present]:
        lines += ["", f"Not run: {', '.join(missing)}."]
    if rows:
        lines += ["", f"![{name}]({name}.png)"]
    return [*lines, "", "## How it was made", "", "```", command, "```", "", *_facts(rows, name)]


def _share_table(rows: Sequence[Row], labeled: float, cells: Sequence[str]) -> tuple[list[str], set[str]]:
    """The lines of the table of one label share, and the kinds of differences in it."""
    references = {other: rows_by_seed(rows, other, labeled) for other in (BASELINE, PEER)}
    oracle = rows_by_seed(rows, ORACLE)
    kinds: set[str] = set()
    table = []
    for recipe in (TEACHER, *(cell for cell in cells if cell != ORACLE), ORACLE):
        cell = oracle if recipe == ORACLE else rows_by_seed(rows, recipe, labeled)
        if not cell:
            continue
        gaps = [None if recipe == other else difference(cell, reference) for other, reference in references.items()]
        kinds |= {gap.kind for gap in gaps if gap}
        share = None if recipe in {BASELINE, ORACLE} else recovered(cell, references[BASELINE], oracle)
        values = [row.values for row in cell.values()]
        table.append(
            [
                recipe,
                len(cell),
                *(_mean_sd_text([value[key] for value in values]) for key in ("map50_95", "map50")),
                " / ".join(_range([value[key] for value in values]) for key in ("steps", "optimizer_steps")),
                *("-" if gap is None else str(gap) for gap in gaps),
                "-" if share is None else f"{share:.0%}",
            ]
        )
    header = ["cell", "seeds", "mAP50-95", "mAP50", "batches / optimizer steps", "against baseline"]
    header += [f"against {PEER}", "baseline to oracle recovered"]
    return markdown_table(header, table), kinds


def _mean_sd_text(values: Sequence[float]) -> str:
    mean, sd = mean_sd(values)
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def _range(values: Sequence[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    return "-" if not known else f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _footnotes(rows: Sequence[Row], kinds: set[str]) -> list[str]:
    lines = ["± is the standard deviation over the seeds. Differences are in mAP50-95."]
    if "seeds" in kinds:
        lines.append(
            "[low, high] is the 95 % confidence interval of the mean paired difference over the seeds (Student's t)."
        )
    if "images" in kinds:
        images = sorted({row.images for row in rows if row.images})
        sample = f" ({format_number(images[0]) if len(images) == 1 else 'several'} test images)" if images else ""
        lines.append(
            "[low, high]* is from one seed: a paired bootstrap over the test images (1,000 draws, 95 %). It covers "
            f"which images happened to be in the test set{sample}, **not the randomness of the training**."
        )
    if any(row.recipe == ORACLE for row in rows):
        lines.append("The oracle is the baseline's network trained on all labels.")
    if any(row.values.get("chosen") == BASELINE for row in rows):
        cells = sorted({row.recipe for row in rows if row.values.get("chosen") == BASELINE})
        lines.append(f"In {', '.join(cells)} the guard kept the baseline's weights in at least one run.")
    return [f"- {line}" for line in lines]


def _facts(rows: Sequence[Row], name: str) -> list[str]:
    """Machine, versions and time."""
    if not rows:
        return []
    lines = [f"The command, the commit and the numbers of each run are in [{name}.csv]({name}.csv).", ""]
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


def draw(rows: Sequence[Row], path: Path, *, cells: Sequence[str]) -> None:
    """Draw one panel per label share: cells as points, with baseline, teacher and oracle as lines."""
    panels = shares(rows)
    shown = [cell for cell in cells if cell not in LINES and rows_by_seed(rows, cell)]
    width = max(4.5, 1.1 * len(shown) + 2.2)
    figure = Figure(figsize=(max(7.5, width * len(panels)), 4.4), layout="constrained")
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    heights = []  # of all panels: they share their scale
    for axes, labeled in zip(axes_of, panels):
        baseline = rows_by_seed(rows, BASELINE, labeled)
        for line, color in LINES.items():
            values = [row.map50_95 for row in rows_by_seed(rows, line, None if line == ORACLE else labeled).values()]
            if values:
                mean, _ = mean_sd(values)
                heights += values
                handles[line] = axes.axhline(mean, color=color, linestyle="-" if line == BASELINE else "--", label=line)
                if len(values) > 1:
                    axes.axhspan(min(values), max(values), color=color, alpha=0.08, linewidth=0)
        for place, cell in enumerate(shown):
            own = rows_by_seed(rows, cell, labeled)
            values = [row.map50_95 for row in own.values()]
            if not values:
                continue
            mean, _ = mean_sd(values)
            heights += values
            gap = difference(own, baseline)
            if gap and set(own) == set(baseline) and gap.low is not None and gap.high is not None:
                bar = [[max(0.0, gap.value - gap.low)], [max(0.0, gap.high - gap.value)]]  # it may lie outside
                axes.errorbar(place, mean, yerr=bar, color=POINTS, capsize=4, linewidth=1.4, zorder=3)
            [handles["mean"]] = axes.plot(place, mean, "D", color=POINTS, markersize=7, zorder=4, label="mean")
            if len(values) > 1:
                spread = [place + 0.12] * len(values)
                [handles["seed"]] = axes.plot(
                    spread, values, "o", color=POINTS, alpha=0.5, markersize=4, label="one seed"
                )
            axes.annotate(
                f"{mean:.3f}", (place, mean), (-9, 0), textcoords="offset points", ha="right", va="center", fontsize=9
            )
        axes.set_xlim(-0.7, max(len(shown), 1) - 0.3)
        axes.set_xticks(range(len(shown)), shown, rotation=20, ha="right")
        axes.set_title(share_text(labeled), fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    room = max(0.02, 0.25 * (max(heights) - min(heights)))
    axes_of[0].set_ylim(max(0.0, min(heights) - room), max(heights) + room)
    axes_of[0].set_ylabel("mAP50-95 on the test images")
    figure.legend(handles=list(handles.values()), loc="outside upper center", ncols=len(handles), frameon=False)
    figure.supxlabel(
        "bars: 95 % interval of the difference to the baseline; significant if it does not touch its line", fontsize=9
    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
