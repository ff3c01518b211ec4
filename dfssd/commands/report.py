"""``dfssd report``: write the report of a run anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dfssd.commands.options import Option, Usage
from dfssd.config.values import TEXT
from dfssd.files import from_here
from dfssd.log import LOGGER

_SUMMARY = (
    "Write report.html, report.md, and plots of a run from what it has recorded, finished or not, for instance after\n"
    "an update. Nothing is trained or measured."
)
USAGE = Usage(
    (Option("run", TEXT, "folder of the run (project/name)", required=True),),
    positional=("run",),
    examples=(("runs/dfssd", "write the report of the run in this folder"),),
)


def run(words: Sequence[str], program: str) -> int:
    """Write the report and name it.

    Args:
        words: The folder of the run.
        program: What was typed before the name of the command.
    """
    folder = Path(USAGE.read(words)["run"]).expanduser()
    from dfssd.results.record import read_run
    from dfssd.runs.ownership import Ownership
    from dfssd.tasks import TASKS

    task = TASKS[read_run(folder).task]
    folder = folder.parent if folder.is_file() else folder  # results.json itself was given
    with Ownership(folder):
        task.run.write_report(folder)
    LOGGER.info(f"{'report':<8} {from_here(folder / 'report.html')}")
    return 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(f"{program} report", _SUMMARY)
