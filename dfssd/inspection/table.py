"""The table of a data set for people: on the console, plain where it is no terminal, and as lines of a log."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dfssd.datasets.account import Role
from dfssd.inspection.report import IMAGE_ROLES, PARTS, DataReport, Part
from dfssd.log import LOGGER
from dfssd.wording import counted, short_paths

NAMED = 3
"""Files that are named for each reason."""

_PLAIN_WIDTH = 240
"""Columns where there is no terminal: nothing is wrapped."""

_LOGGED_CLASSES = 12
_LOGGED_REASONS = 5


def print_report(report: DataReport, console: Console | None = None) -> None:
    """Print everything but the problems: warnings first, then the table, then what is left out, and copies.

    Args:
        report: What to print.
        console: Where to; None: the standard output.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_PLAIN_WIDTH)
    for warning in report.warnings:
        console.print(Text(f"warning: {_shown(warning)}", style="yellow"), soft_wrap=True)
    for line in _head(report):
        console.print(Text(line), soft_wrap=True)
    console.print()
    console.print(_table(report))
    if lines := (*_left_out(report), *_copies(report)):
        console.print()
        for line in lines:
            console.print(Text(line), soft_wrap=True)


def describe_data(report: DataReport) -> list[str]:
    """The table in lines, shortened where there are many classes or reasons; warnings are not in it."""
    text = io.StringIO()
    console = Console(file=text, width=_PLAIN_WIDTH, color_system=None)
    console.print(_table(report, _LOGGED_CLASSES))
    table = [line.rstrip() for line in text.getvalue().splitlines()]
    return [*_head(report), *table, *_left_out(report, _LOGGED_REASONS), *_copies(report)]


def log_report(report: DataReport) -> None:
    """Log warnings as such, then the lines of :func:`describe_data`."""
    for warning in report.warnings:
        LOGGER.warning(warning)
    for line in describe_data(report):
        LOGGER.info(line)


def _head(report: DataReport) -> Iterator[str]:
    """What the data set is, and the role of each file of its source."""
    n = len(report.items)
    classes = report.names[1:] if report.masks else report.names
    names = ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
    background = f", background: {report.names[0]}" if report.masks else ""  # a list may have forgotten it
    sizes = f"{counted(n, 'image')}, {counted(len(classes), 'class')}"
    yield _shown(f"{report.dataset.name}: {sizes} ({names}){background}")
    outside = {kind: count for kind, count in report.dataset.account.outside.items() if count}
    ignored = ", ".join(f"{count:,} {kind}" for kind, count in outside.items())
    if report.counted:
        others = [_role(role, count) for role, count in report.files.items() if role not in IMAGE_ROLES]
        files = f"{counted(report.counted, 'file')}: {', '.join([counted(n, 'image'), *others])}"
        yield files + (f"; besides, not part of the data: {ignored}" if ignored else "")
    elif ignored:
        yield f"not part of the data: {ignored}"


def _role(role: Role, count: int) -> str:
    """A number of files in words."""
    return f"{count:,} {role.value}" if role is Role.LEFT_OUT else counted(count, role.value)


def _table(report: DataReport, most_classes: int | None = None) -> Table:
    """Images by role, and boxes by class, a column for each part; at most ``most_classes`` lines of classes."""
    total = _sum(report.counts.values())
    columns: list[Part | None] = [part for part in PARTS if report.split]
    if total[None] and columns:
        columns.append(None)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in (*columns, "all"):
        table.add_column(column or "not used", justify="right", no_wrap=True)
    for name, counts in _lines(report, total, most_classes):
        cells = [*(counts[column] for column in columns), counts.total()] if counts is not None else []
        table.add_row(Text(_shown(name)), *(f"{n:,}" if n else "-" for n in cells))
    return table


def _lines(
    report: DataReport, total: Counter[Part | None], most_classes: int | None
) -> Iterator[tuple[str, Counter[Part | None] | None]]:
    """Name and numbers of each line; a heading has none."""
    yield "images", total
    for role in IMAGE_ROLES:
        if report.counts[role]:
            yield f"  {role.value.removesuffix(' image')}", report.counts[role]
    if report.hidden:
        yield "  trained without their labels", Counter[Part | None]({"train": len(report.hidden)})
    classes = report.by_class
    yield ("images that show", None) if report.masks else ("boxes", _sum(classes.values()))
    shown = list(classes)
    if most_classes is not None and len(shown) > most_classes:
        shown = sorted(shown, key=lambda name: -classes[name].total())[: most_classes - 1]
    for name in shown:
        yield f"  {name}", classes[name]
    if rest := [classes[name] for name in classes if name not in set(shown)]:
        yield f"  {counted(len(rest), 'other class')}", _sum(rest)


def _sum(counts: Iterable[Counter[Part | None]]) -> Counter[Part | None]:
    return sum(counts, Counter[Part | None]())


def _left_out(report: DataReport, most: int | None = None) -> Iterator[str]:
    """What is left out and why, the first files of each reason by name; at most ``most`` reasons."""
    by_reason: dict[str, list[Path]] = defaultdict(list)
    for file in report.left_out:
        by_reason[file.reason].append(file.path)
    reasons = sorted(by_reason.items(), key=lambda entry: -len(entry[1]))
    for reason, files in reasons[:most]:
        yield f"left out, {len(files):,}: {_shown(reason)} ({_named([_short(file)[0] for file in files])})"
    if most is not None and len(reasons) > most:
        rest = sum(len(files) for _, files in reasons[most:])
        yield f"left out, {rest:,}: {counted(len(reasons) - most, 'other reason')}; dfssd check data=... lists them"


def _copies(report: DataReport) -> Iterator[str]:
    """Copies among the images; warnings name those that a split divides."""
    if report.copies:
        pairs = [" = ".join(_short(*map(report.source_of, group[:2]))) for group in report.copies]
        torn = f", {len(report.torn):,} of them split between train and val or test" if report.torn else ""
        groups = counted(len(report.copies), "group") + torn
        yield f"copies: {counted(report.surplus, 'image')} repeating others in {groups} ({_named(pairs)})"


def _named(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f", and {more:,} more" if more > 0 else "")


def _short(*files: Path) -> list[str]:
    """Files with their folder, or as many as tell them apart."""
    return list(map(_shown, short_paths(files)))


def _shown(name: str) -> str:
    """A name in one line, without what would control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)
