"""The logger ``dfssd``, and how the commands show it."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

LOGGER = logging.getLogger("dfssd")
"""INFO: progress. WARNING: the user should have a look. ERROR: something failed without ending the run."""


class _Console(logging.Handler):
    """Prints lines with the prefix ``[dfssd]`` to the current ``sys.stdout`` or ``sys.stderr``."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = "warning: " if record.levelno == logging.WARNING else ""
        print(
            f"[dfssd] {mark}{record.getMessage()}",
            file=sys.stderr if record.levelno >= logging.ERROR else sys.stdout,
        )


@contextlib.contextmanager
def console() -> Iterator[None]:
    """Show what is logged on the console, as the commands do: ``@console()`` above their main function.

    Errors go to stderr, all else to stdout. Records do not propagate to the root logger, whose handlers would print
    them twice. Inside another ``console()`` it does nothing.
    """
    if any(isinstance(handler, _Console) for handler in LOGGER.handlers):
        yield
        return
    handler, level, propagate = _Console(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
