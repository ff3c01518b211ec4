"""What a run says while it runs: the logger ``dfssd``, and how the commands show it."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

LOGGER = logging.getLogger("dfssd")
"""Progress is INFO, what a user should look into is WARNING, what failed without ending the run is ERROR."""


class _Console(logging.Handler):
    """Prints a line with our mark; to where ``sys.stdout`` and ``sys.stderr`` point at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = "warning: " if record.levelno == logging.WARNING else ""
        print(
            f"[dfssd] {mark}{record.getMessage()}",
            file=sys.stderr if record.levelno >= logging.ERROR else sys.stdout,
        )


@contextlib.contextmanager
def console() -> Iterator[None]:
    """Show what is logged on the console, as the commands do: ``@console()`` above their main function.

    Errors go to stderr, all else to stdout. Nothing is passed on to the handlers of the root logger, which belong to
    somebody else and would print it twice. Inside of another ``console()`` it does nothing.
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
