"""What the scripts that measure have in common: their help, errors in one line, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from dfssd.errors import UserError, report_problems
from dfssd.interrupts import exit_code, stopped_by_signals
from dfssd.process import prepare_process

HELP = {"-h", "--help", "help"}


def run_script(argv: Sequence[str], work: Callable[[list[str]], int | None], text: str | None) -> int:
    """Run a script; returns its exit code.

    Args:
        argv: Its arguments.
        work: What it does with them; returns the exit code, None for 0.
        text: Its help.
    """
    prepare_process()  # the processes that it starts inherit it
    if HELP & set(argv):
        print(text)
        return 0
    try:
        with stopped_by_signals():
            return work(list(argv)) or 0
    except UserError as e:
        return report_problems(e)
    except KeyboardInterrupt as e:
        print("\ninterrupted; the same line goes on, or begins anew where nothing is kept", file=sys.stderr)
        return exit_code(e)
