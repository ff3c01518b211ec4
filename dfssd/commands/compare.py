"""``dfssd compare``: the results of several runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dfssd.commands.options import Option, Usage
from dfssd.config.values import TEXT, TEXTS, OneOf, optional
from dfssd.errors import UserError
from dfssd.log import LOGGER

_SUMMARY = (
    "Set the test results of several runs side by side; the first run is what the others are compared with.\n"
    "Differences have intervals where the runs were tested on the same images."
)
_WIDTH = 180
"""Of the table where it does not go to a terminal [characters]."""
USAGE = Usage(
    (
        Option("runs", TEXTS, "folders of two or more runs of one task", required=True),
        Option("role", OneOf(("student", "baseline", "teacher")), "the network of each run", default="student"),
        Option("out", optional(TEXT), "folder for comparison.md, comparison.csv, and comparison.png"),
    ),
    positional=("runs",),
    examples=(
        ("runs/labels runs/dfssd runs/dfssd2", "the students of three runs, compared with that of the first"),
        ("runs/a runs/b role=teacher out=teachers", "their teachers, with a chart"),
    ),
)


def run(words: Sequence[str], program: str) -> int:
    """Print the table, and write it with a chart to ``out``, if given.

    Args:
        words: Folders of runs, and options.
        program: What was typed before the name of the command.
    """
    values = USAGE.read(words)
    runs = values["runs"] if isinstance(values["runs"], list) else [values["runs"]]
    if len(runs) < 2:
        raise UserError("compare needs two or more runs: give their folders")
    from rich.console import Console
    from rich.table import Table

    from dfssd.comparison import compare_runs, write_comparison

    comparison = compare_runs([Path(run).expanduser() for run in runs], values["role"])
    table = Table(*comparison.header)
    for row in comparison.rows():
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)
    console.print(comparison.note, markup=False, highlight=False)
    if values["out"] is not None:
        out = Path(values["out"]).expanduser()
        write_comparison(comparison, out)
        LOGGER.info(f"comparison: {out / 'comparison.md'}")
    return 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(f"{program} compare", _SUMMARY)
