"""The logger ``dfssd``, and how the commands show it: lines, and below them one that changes while a run computes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

LOGGER = logging.getLogger("dfssd")
"""DEBUG: for the log file of a run only. INFO: progress. WARNING: the user should have a look. ERROR: something failed
without ending the run."""

MARK = "[dfssd] "
"""Before our lines where those of other packages stand beside them."""

_REDRAWS = 2
"""Times per second that the changing line is drawn."""


def line_of(record: logging.LogRecord) -> str:
    """A record as it is shown: warnings are marked as such."""
    return ("warning: " if record.levelno == logging.WARNING else "") + record.getMessage()


class _Shown(logging.Handler):
    """Prints lines to the standard output, and errors to the standard error.

    Attributes:
        streams: Where to, instead of the current ``sys.stdout`` and ``sys.stderr``.
        mark: What each line begins with.
        live: The changing line below them, while there is one.
        note: What is being done right now, behind that line.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.streams: tuple[TextIO, TextIO] | None = None
        self.mark = ""
        self.live: Live | None = None
        self.note = ""

    def emit(self, record: logging.LogRecord) -> None:
        out, err = self.streams or (sys.stdout, sys.stderr)
        text, failed = self.mark + line_of(record), record.levelno >= logging.ERROR
        if self.live is None:
            print(text, file=err if failed else out, flush=True)
        elif failed:  # the two streams may be one terminal, and rich draws on the first only
            self.live.stop()
            print(text, file=err, flush=True)
            self.live.start(refresh=True)
        else:
            style = "yellow" if record.levelno == logging.WARNING else ""
            self.live.console.print(Text(text, style), soft_wrap=True)


def _shown() -> _Shown | None:
    """The handler of the command that is running; None in a program that uses the package."""
    return next((handler for handler in LOGGER.handlers if isinstance(handler, _Shown)), None)


@contextlib.contextmanager
def console() -> Iterator[None]:
    """Show what is logged on the console, as the commands do: ``@console()`` above their main function.

    Errors go to stderr, all else to stdout. Records do not propagate to the root logger, whose handlers would print
    them twice. Inside another ``console()`` it does nothing.
    """
    if _shown():
        yield
        return
    with handled_by(_Shown(), level=logging.INFO):
        yield


@contextlib.contextmanager
def handled_by(*handlers: logging.Handler, level: int) -> Iterator[None]:
    """Give our records from a level on to these handlers as well, and to none of the root logger."""
    before, propagate = LOGGER.level, LOGGER.propagate
    for handler in handlers:
        LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    try:
        yield
    finally:
        for handler in handlers:
            LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)
        LOGGER.propagate = propagate


@contextlib.contextmanager
def shown_on(out: TextIO, err: TextIO, *, mark: bool) -> Iterator[None]:
    """Show lines on these streams in the block, since the standard ones lead elsewhere.

    Args:
        out: Instead of ``sys.stdout``.
        err: Instead of ``sys.stderr``.
        mark: Whether each line begins with :data:`MARK`.
    """
    handler = _shown()
    if handler is None:
        yield
        return
    before = handler.streams, handler.mark
    handler.streams, handler.mark = (out, err), MARK if mark else ""
    try:
        yield
    finally:
        handler.streams, handler.mark = before


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Drop what native libraries write to the error stream of the process in the block, as when they start."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def in_ci() -> bool:
    """Whether this is an automatic check, as its environment says (``CI=true``): nobody watches."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def note(text: str) -> bool:
    """Say behind the changing line what is being done right now, in place of what was said before.

    Args:
        text: A few words, such as ``Reading images: 1,000 of 5,000``; empty: nothing.

    Returns:
        Whether there is such a line.
    """
    handler = _shown()
    if handler is None or handler.live is None:
        return False
    handler.note = text
    return True


@contextlib.contextmanager
def changing_line(text: Callable[[], str]) -> Iterator[bool]:
    """Keep ``text()`` in the last line of the terminal during the block; other lines appear above it.

    It is drawn twice a second by a thread of its own, so that whoever changes what it says need not wait.

    Args:
        text: What the line says now.

    Yields:
        Whether there is such a line: only in a command whose standard output is a terminal, and not in automatic
        checks.
    """
    handler = _shown()
    out = (handler.streams or (sys.stdout,))[0] if handler else None
    if handler is None or out is None or handler.live or handler.mark or in_ci() or not out.isatty():
        yield False
        return
    screen = Console(file=out)
    if screen.is_dumb_terminal or not screen.is_terminal:
        yield False
        return

    def drawn() -> Text:
        return Text("  ".join(filter(None, [text(), handler.note])), no_wrap=True, overflow="ellipsis")

    handler.live = Live(
        get_renderable=drawn,
        console=screen,
        refresh_per_second=_REDRAWS,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        handler.live.start(refresh=True)
        yield True
    finally:
        handler.live.stop()
        handler.live, handler.note = None, ""
