"""``dfssd check``: print what a run would read from its data."""

from __future__ import annotations

from collections.abc import Sequence

from dfssd.commands.help_page import entry, paragraph, show
from dfssd.commands.options import Option, shown
from dfssd.config import parse_arguments
from dfssd.config.values import TEXT, allowed, optional
from dfssd.errors import UserError, report_problems

OUT = Option("out", optional(TEXT), "folder for data_report.json and for data.png, a picture of the labels")
"""What it takes besides the keys of a run."""

_SUMMARY = (
    "Read the data and draw the split as a run with these arguments would, and show what was found: formats, classes, "
    "boxes, copies, warnings. Nothing is trained. All arguments of a run are taken (see the help of train); those that "
    "do not concern the data have no effect."
)


def run(words: Sequence[str], program: str) -> int:
    """Print what a run would read from its data; 2 if that would stop it.

    Args:
        words: Arguments of a run, and ``out=``; the first one may be the data alone.
        program: What was typed before the name of the command.
    """
    from dfssd.data_check import check_data
    from dfssd.inspection.table import print_report

    first = [f"data={word}" if "=" not in word and not word.startswith("-") else word for word in words[:1]]
    report = check_data(parse_arguments([*first, *words[1:]]))
    print_report(report)
    return report_problems(UserError(*report.problems)) if report.problems else 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    page = [paragraph(f"usage: {program} check DATA key=value ..."), "", paragraph(_SUMMARY), ""]
    page += entry(OUT.name, shown(OUT.default), allowed(OUT.check), OUT.meaning)
    show([*page, "", paragraph(f"{program} check my_parts out=seen", 2)])
