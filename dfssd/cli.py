"""The command line: the name of a command, or none for ``train``, then ``key=value`` arguments; an error is one line.

Exit codes: 0 finished, 1 a bug (traceback), 2 bad input or a failed check, 130 interrupted (resumable).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dfssd import __version__, log
from dfssd.commands import COMMANDS, TRAIN, split_words
from dfssd.errors import UserError, report_problems

HELP = {"-h", "--help", "help"}


@log.console()
def main(argv: Sequence[str] | None = None, program: str = "dfssd") -> int:
    """Run the command line and return the exit code.

    Args:
        argv: The arguments after the program name; None takes those of this process.
        program: What was typed before them, shown in the usage and recorded.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS[TRAIN]
    try:
        if not words or words[0] in HELP:
            show_commands(program)
            command.show_help(program)
            return 0
        if "--version" in words:
            print(f"dfssd {__version__}")
            return 0
        command, own = split_words(words)
        if HELP & set(own):
            command.show_help(program)
            return 0
        return command.run(own, program)
    except UserError as e:
        return report_problems(e)
    except KeyboardInterrupt:
        again = f" with {command.resumable}" if command.resumable and not _is_protocol(words) else ""
        print(f"\ninterrupted; repeat the same line{again} to continue", file=sys.stderr)
        return 130


def _is_protocol(words: Sequence[str]) -> bool:
    """Whether a line runs the class-incremental protocol, which is resumed by the same line."""
    return any(word.lstrip("-").startswith("steps=") or word == "--steps" for word in words)


def show_commands(program: str) -> None:
    """Print the commands, a line each."""
    width = max(map(len, COMMANDS))
    print(f"usage: {program} [command] key=value ...   ({program} <command> --help says more)\n")
    for name, command in COMMANDS.items():
        print(f"  {name:<{width}}  {command.summary}")
    print()
