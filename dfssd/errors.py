"""The one kind of error that users are meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, or a situation that the user can change: reported without traceback, exit code 2.

    Attributes:
        problems: One line each: what is wrong, where, and what to do. Usually one; checks that can find several
            problems at once report them together.
    """

    def __init__(self, *problems: str):
        """Take one line for each problem."""
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        """The lines of all problems."""
        return "\n".join(self.problems)
