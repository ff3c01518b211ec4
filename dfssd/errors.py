"""The errors that are meant for users."""

from __future__ import annotations

import signal
import sys
import unicodedata
from pathlib import Path

_LONGEST = 200
"""Characters of a message of another package."""


class UserError(Exception):
    """Bad input, or a situation that the user can change: reported without traceback, exit code 2.

    Attributes:
        problems: One line each: what is wrong, where, and what to do. Usually one; checks that can find several
            problems at once report them together.
    """

    def __init__(self, *problems: str):
        """Store one line for each problem; line breaks and the like in it, as of a file name, are escaped."""
        self.problems = tuple(map(one_line, problems))
        super().__init__(*self.problems)

    def __str__(self) -> str:
        """The lines of all problems."""
        return "\n".join(self.problems)


class Interrupted(KeyboardInterrupt):
    """The user, or a signal, has stopped a run that can go on.

    Attributes:
        folder: Its folder.
        signal: The number of the signal.
    """

    def __init__(self, folder: Path, number: int = signal.SIGINT):
        """Note the folder of the run, and the signal."""
        super().__init__(f"the run in {folder}")
        self.folder, self.signal = folder, number


def one_line(text: str) -> str:
    """``text`` with control characters, separators of lines, and bytes that are no UTF-8 as escape sequences."""
    odd = {ord(c): repr(c)[1:-1] for c in set(text) if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}}
    return text.translate(odd)


def reason(error: BaseException) -> str:
    """What an error of another package says, in one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def report_problems(error: UserError) -> int:
    """Print each problem as one line on the standard error stream; return the exit code of bad input."""
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
    return 2
