"""What the figures of all tasks share: colors, axes, and charts that differ only in their labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # used directly: pyplot would choose a backend and keep every figure alive
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dfssd.files import atomic_write
from dfssd.results.sections import SCRATCH, Role

COLORS = {"teacher": "#7a7a7a", SCRATCH: "#fdb863", "baseline": "#e08214", "student": "#2166ac"}
MOST_CLASSES = 40
"""With more classes, bars and names become unreadable; the most interesting ones are shown."""


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to ``path``, whole."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)


def bare_axes(axes: Axes) -> None:
    """Remove top and right frame and draw a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def list_classes(axes: Axes, names: Sequence[str]) -> None:
    """Label the y axis with class names, the first at the top, without horizontal grid lines."""
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    bare_axes(axes)
    axes.grid(visible=False, axis="y")


def shortened(name: str, most: int = 34) -> str:
    """A name cut to at most ``most`` characters, its middle left out."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}...{name[-(most // 2 - 2) :]}"


def common_scores(scores: Mapping[Role, Mapping[str, float | None]]) -> dict[Role, dict[str, float]]:
    """Scores of the classes that have one in every network; role -> class name -> score."""
    common: dict[Role, dict[str, float]] = {role: {} for role in scores}
    for name in next(iter(scores.values()), {}):
        found = {role: own.get(name) for role, own in scores.items()}
        if None not in found.values():
            for role, value in found.items():
                common[role][name] = value or 0.0
    return common


def class_bars(
    scores: Mapping[Role, Mapping[str, float]],
    path: Path,
    *,
    labels: Mapping[Role, str],
    color: Callable[[Role], str],
    interest: Callable[[str], float],
    score: str,
    widest: float | None = None,
) -> bool:
    """Draw the score of each class on the test images, a bar per network.

    Args:
        scores: Role -> class name -> score in [0, 1], the same classes for all.
        path: File to write.
        labels: Role -> its name in the legend.
        color: Color of a role.
        interest: Rank of a class for being shown where there are more than :data:`MOST_CLASSES`.
        score: What is measured.
        widest: Right end of the axis; None fits it to the bars.

    Returns:
        Whether there was a class to draw.
    """
    names = list(next(iter(scores.values()), {}))
    if not names:
        return False
    if len(names) > MOST_CLASSES:
        names = sorted(names, key=interest, reverse=True)[:MOST_CLASSES]
    figure = Figure(figsize=(8, 1.2 + len(names) * (0.2 + 0.17 * len(scores))), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(scores)
    for place, (role, own) in enumerate(scores.items()):
        where = np.arange(len(names)) + (place - (len(scores) - 1) / 2) * height
        bars = axes.barh(where, [own[name] for name in names], height * 0.9, color=color(role))
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        bars.set_label(labels[role])
    list_classes(axes, names)
    right = min(1.1, axes.get_xlim()[1] * 1.08) if widest is None else widest
    axes.set(xlim=(0, right), xlabel=f"{score} on the test images")
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    save_figure(figure, path)
    return True


def validation_curves(
    curves: Mapping[Role, tuple[Sequence[float], Sequence[float | None]]],
    path: Path,
    *,
    labels: Mapping[Role, str],
    color: Callable[[Role], str],
    score: str,
) -> bool:
    """Draw the validation score over optimizer steps, a line per network.

    Args:
        curves: Role -> (steps, scores), one of each per epoch; None or NaN in epochs without validation.
        path: File to write.
        labels: Role -> its name in the legend.
        color: Color of a role.
        score: What is measured.

    Returns:
        Whether there was something to draw.
    """
    if not curves:
        return False
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for role, (steps, scores) in curves.items():
        points = [(x, y) for x, y in zip(steps, scores, strict=True) if y is not None and math.isfinite(y)]
        style = ".-" if len(points) < 30 else "-"
        axes.plot([x for x, _ in points], [y for _, y in points], style, color=color(role), label=labels[role])
    axes.set(xlabel="optimizer steps", ylabel=f"{score} on the validation images")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(frameon=False)
    bare_axes(axes)
    save_figure(figure, path)
    return True


def epoch_charts(
    names: Sequence[str], plot: Callable[[Axes, str], None], *, most_columns: int, height: float
) -> Figure:
    """A grid of small charts over the epochs, one for each of ``names``.

    Args:
        names: What is drawn, at least one.
        plot: Draws one of them into its axes, the title included.
        most_columns: Charts side by side.
        height: Of one chart [inch].
    """
    columns = min(most_columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, height * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        plot(axes, name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if place + columns >= len(names):
            axes.set_xlabel("epoch")
        bare_axes(axes)
    return figure


def plot_epochs(axes: Axes, values: Sequence[float], **style: Any) -> Line2D:
    """Draw one value per epoch; a single epoch has no line, only a point."""
    [line] = axes.plot(range(1, len(values) + 1), values, "." if len(values) == 1 else "-", **style)
    return line


def has_numbers(values: Iterable[float]) -> bool:
    """Whether there is a finite number among ``values``."""
    return any(math.isfinite(value) for value in values)
