"""The chart of a benchmark: one panel per label share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dfssd.benchmark.grid import BASE, ORACLE, TEACHER
from dfssd.benchmark.summary import Summary
from dfssd.files import atomic_write

LINES = {BASE: "#e08214", TEACHER: "#7a7a7a", ORACLE: "#1a9850"}
POINTS = "#2166ac"
Handles = dict[str, Any]
"""Entries of the legend, by their text."""


def draw(panels: Mapping[str, Sequence[Summary]], path: Path) -> None:
    """Draw cells as points, with baseline, teacher and oracle as lines.

    Args:
        panels: Title of a panel -> lines of its table.
        path: The PNG file.
    """
    most = max(sum(line.cell not in LINES for line in lines) for lines in panels.values())
    width = max(4.5, 1.1 * most + 2.2)
    figure = Figure(figsize=(max(7.5, width * len(panels)), 4.4), layout="constrained")
    handles: Handles = {}
    heights: list[float] = []  # of all panels: they share their scale
    axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, lines) in zip(axes_of, panels.items()):
        heights += _draw_panel(axes, lines, handles)
        axes.set_title(title, fontsize=11)
    room = max(0.02, 0.25 * (max(heights) - min(heights)))
    axes_of[0].set_ylim(max(0.0, min(heights) - room), max(heights) + room)
    axes_of[0].set_ylabel("mAP50-95 on the test images")
    figure.legend(
        handles=list(handles.values()), loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9
    )
    figure.supxlabel(
        "bars: 95 % interval of the difference to the baseline; significant if it does not touch its line", fontsize=9
    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_panel(axes: Axes, lines: Sequence[Summary], handles: Handles) -> list[float]:
    """Draw one panel; return the heights that it has to show."""
    cells = {line.cell: line for line in lines}
    heights = [row.map50_95 for line in lines for row in line.rows.values()]
    for name in [name for name in LINES if name in cells]:
        _draw_line(axes, cells[name], handles)
    shown = [line for line in lines if line.cell not in LINES]
    for place, line in enumerate(shown):
        heights += _draw_point(axes, place, line, cells.get(BASE), handles)
    axes.set_xlim(-0.7, max(len(shown), 1) - 0.3)
    names = [f"{line.cell}, {len(line.rows)} seeds" if len(line.rows) > 1 else line.cell for line in shown]
    axes.set_xticks(range(len(shown)), names, rotation=20, ha="right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    return heights


def _draw_line(axes: Axes, line: Summary, handles: Handles) -> None:
    """Draw the mean of a reference and the range of its seeds."""
    color, style = LINES[line.cell], "-" if line.cell == BASE else "--"
    handles[line.cell] = axes.axhline(line.test.value, color=color, linestyle=style, label=line.cell)
    values = [row.map50_95 for row in line.rows.values()]
    if len(values) > 1:
        axes.axhspan(min(values), max(values), color=color, alpha=0.08, linewidth=0)


def _draw_point(axes: Axes, place: int, line: Summary, base: Summary | None, handles: Handles) -> list[float]:
    """Draw the mean of a cell, its interval, its seeds, and its gain on val; return further heights to show."""
    heights: list[float] = []
    gain, mean = line.gain, line.test.value
    if base and gain and set(line.rows) == set(base.rows) and gain.low is not None and gain.high is not None:
        bar = [[max(0.0, gain.value - gain.low)], [max(0.0, gain.high - gain.value)]]  # it may lie outside
        axes.errorbar(place, mean, yerr=bar, color=POINTS, capsize=4, linewidth=1.4, zorder=3)
    [handles["mean"]] = axes.plot(place, mean, "D", color=POINTS, markersize=7, zorder=4, label="mean")
    if base and line.val_gain:  # val and test images differ in difficulty: only gains compare
        heights.append(base.test.value + line.val_gain.value)
        [handles["val"]] = axes.plot(
            place - 0.12, heights[-1], "D", color=POINTS, fillstyle="none", markersize=5, label="gain on val"
        )
    if len(line.rows) > 1:
        values = [row.map50_95 for row in line.rows.values()]
        [handles["seed"]] = axes.plot(
            [place + 0.12] * len(values), values, "o", color=POINTS, alpha=0.5, markersize=4, label="one seed"
        )
    axes.annotate(
        str(line.test), (place, mean), (-9, 0), textcoords="offset points", ha="right", va="center", fontsize=9
    )
    return heights
