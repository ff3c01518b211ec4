"""``dfssd check``: print what a run would read from its data."""

from __future__ import annotations

from collections.abc import Sequence

from dfssd.config import parse_arguments
from dfssd.errors import UserError, report_problems


def run(words: Sequence[str], program: str) -> int:
    """Print what a run would read from its data; 2 if that would stop it.

    Args:
        words: Arguments of a run, and ``out=``.
        program: What was typed before the name of the command.
    """
    from dfssd.data_check import check_data
    from dfssd.inspection.table import print_report

    report = check_data(parse_arguments(list(words)))
    print_report(report)
    return report_problems(UserError(*report.problems)) if report.problems else 0


def show_help(program: str) -> None:
    """Print how it is used."""
    from rich.console import Console

    Console().print(
        f"usage: {program} check data=... key=value ...\n\n"
        "Read the data and draw the split as a run with these arguments would, and show what was found: formats,\n"
        "classes, boxes, copies, warnings. Nothing is trained. All arguments of a run are taken (see the help of\n"
        "train); those that do not concern the data have no effect.\n\n"
        "  out=FOLDER    write data_report.json and data.png, a picture of the labels, to this folder\n\n"
        f"  {program} check data=my_parts out=seen",
        markup=False,
        highlight=False,
    )
