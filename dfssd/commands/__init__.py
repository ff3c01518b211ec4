"""The commands of ``dfssd``, a module each; a new one needs a module and a line in :data:`COMMANDS`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from dfssd.errors import UserError

TRAIN = "train"
"""The command of a line that names none."""


@dataclass(frozen=True)
class Command:
    """A word of the command line and what it does.

    Attributes:
        summary: What it does, in half a line.
        module: Module with ``run(words, program) -> exit code`` and ``show_help(words, program)``; imported when it is
            needed, so that no command waits for the packages of another.
        continues: Whether the same line, once more, goes on with what was interrupted.
    """

    summary: str
    module: str
    continues: bool = False

    def run(self, words: Sequence[str], program: str) -> int:
        """Run it with the words after its name; returns the exit code."""
        return int(import_module(self.module).run(words, program))

    def show_help(self, words: Sequence[str], program: str) -> None:
        """Print how it is used; ``words`` are those after its name, without the one that asks for help."""
        import_module(self.module).show_help(words, program)


COMMANDS: Mapping[str, Command] = {
    TRAIN: Command("train teacher, baseline, and student (the default)", "dfssd.commands.train"),
    "check": Command("show what would be read from the data; nothing is trained", "dfssd.commands.check"),
    "report": Command("write the report of a run anew", "dfssd.commands.report"),
    "compare": Command("set the results of several runs side by side", "dfssd.commands.compare"),
    "review": Command("images of a run to an annotation tool, and the corrected labels back", "dfssd.commands.review"),
    "completion": Command("print a script that completes this command line in a shell", "dfssd.commands.completion"),
    "export": Command("write the student of a run in other formats, compared and timed", "dfssd.commands.export"),
    "predict": Command("find defects in images, videos, and streams", "dfssd.commands.predict"),
    "label": Command("pseudo-labels of a large folder, as Parquet files", "dfssd.commands.label", continues=True),
    "serve": Command("find defects in images that are sent over HTTP, with a page to try it", "dfssd.commands.serve"),
    "benchmark": Command("run a grid of trainings, and compare them", "dfssd.benchmark.command", continues=True),
}
"""Name -> command, in the order of the help."""


def split_words(words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """The command that a line means, and the words that belong to it.

    Raises:
        UserError: The first word is neither a command nor an argument.
    """
    first = words[0] if words else ""
    if first in COMMANDS:
        return COMMANDS[first], words[1:]
    if first and "=" not in first and not first.startswith("-"):
        near = difflib.get_close_matches(first, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f": {', '.join(COMMANDS)} (see --help)"
        raise UserError(f"'{first}' is neither an argument (key=value) nor a command{hint}")
    return COMMANDS[TRAIN], words
