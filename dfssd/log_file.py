"""The log file of a run: all that this process prints while it computes, whole; the terminal keeps to our own lines."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from dfssd.errors import UserError
from dfssd.files import final_names
from dfssd.log import LOGGER, MARK, handled_by, line_of, shown_on

NAME = "log.txt"
"""Its name in the folder of a run."""

_INHERITED = "DFSSD_LOG_FILE"
"""Environment variable that tells child processes which log file takes what they print."""

_OTHERS = ("ultralytics", "torch")
"""Packages whose loggers hold on to the streams that were there when they were imported."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?!\n)")
"""Colors, and moves of the cursor."""

_NAMED = 5
"""Messages of another package that are shown at most, each once."""


class _Tee(io.TextIOBase):
    """A stream into the log file, plain, and to another stream as well if others are shown.

    Attributes:
        file: The log file; None after the run, when whoever held on to this stream writes to ``before`` again.
        before: The stream whose place it takes.
        shown: Whether that one gets everything, too.
    """

    def __init__(self, file: TextIO, before: TextIO, *, shown: bool):
        self.file: TextIO | None = file
        self.before, self.shown = before, shown
        self._bars: dict[int, str] = {}
        self._lock = threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the log file."""
        return "utf-8"

    def write(self, text: str) -> int:
        """Write ``text``, in the log without colors and under the final names of files."""
        if self.file is None or self.shown:
            self.before.write(text)
        if self.file is not None:
            with self._lock:
                self.file.write(final_names(_CONTROL.sub("", text)))
        return len(text)

    def progress(self, bar: int, frame: str) -> None:
        """Take a redraw of one of Ultralytics' progress bars: the log gets its last state only.

        Args:
            bar: Which bar.
            frame: How it looks now; empty when it is done, after which Ultralytics ends the line.
        """
        if self.shown and self.file is not None:
            self.before.write(frame)
        if frame:
            self._bars[bar] = frame
        elif self.file is not None:
            with self._lock:
                self.file.write(_CONTROL.sub("", self._bars.pop(bar, "")))

    def flush(self) -> None:
        """Flush both."""
        if self.file is not None:
            self.file.flush()
        if self.file is None or self.shown:
            self.before.flush()

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return (self.file is None or self.shown) and self.before.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream whose place it takes."""
        return self.before.fileno()

    def writable(self) -> bool:
        """Yes."""
        return True


class _OurLines(logging.Handler):
    """Writes our own lines into the log file, details included."""

    def __init__(self, file: TextIO):
        super().__init__(logging.DEBUG)
        self.file = file

    def emit(self, record: logging.LogRecord) -> None:
        self.file.write(f"{MARK}{line_of(record)}\n")
        self.file.flush()


class _Onward(logging.Handler):
    """Hands our lines to the handlers of the program that uses the package, if it wants them."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.root.handle(record)


class _OtherWarnings(logging.Handler):
    """Shows warnings of other packages among ours, each once."""

    def __init__(self, name: str, file: Path):
        super().__init__(logging.WARNING)
        self.name, self.file = name, file
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(_CONTROL.sub("", record.getMessage()).split())
        if text in self.seen or len(self.seen) > _NAMED:
            return
        self.seen.add(text)
        LOGGER.warning(f"{self.name}: {text}" if len(self.seen) <= _NAMED else f"{self.name}: more in {self.file}")


@contextlib.contextmanager
def logged_to(folder: Path, title: str, *, shown: bool) -> Iterator[None]:
    """Send what is printed in the block to the log file of a run, behind what earlier sessions have written.

    Our own lines go there, too, and to where they are shown otherwise. Warnings of Ultralytics are shown among them.

    Args:
        folder: Folder of the run.
        title: First line of this session.
        shown: Show everything on the terminal as well.

    Raises:
        UserError: The file cannot be written.
    """
    path = folder / NAME
    try:
        file = open(path, "a", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror}; choose another place with project=") from e
    with file, contextlib.ExitStack() as undo:
        file.write(f"--- {datetime.now():%Y-%m-%d %H:%M:%S} {title}\n")
        out, err = _Tee(file, sys.stdout, shown=shown), _Tee(file, sys.stderr, shown=shown)
        undo.enter_context(_our_lines_to(file))
        undo.enter_context(shown_on(out.before, err.before, mark=shown))
        if not shown:
            undo.enter_context(_warnings_of("ultralytics", "Ultralytics", path))
            undo.enter_context(_inherited(path))
        undo.enter_context(_redirected(out, err))
        try:
            yield
        except BaseException as e:
            if not isinstance(e, UserError | KeyboardInterrupt):
                traceback.print_exc(file=file)
            raise
        finally:
            out.file = err.file = None


@contextlib.contextmanager
def _inherited(path: Path) -> Iterator[None]:
    """Tell child processes of the log file."""
    os.environ[_INHERITED] = str(path.resolve())
    try:
        yield
    finally:
        os.environ.pop(_INHERITED, None)


def shared_log() -> str | None:
    """The log file that other processes of this run print to; None with ``verbose=true``: to the terminal."""
    return os.environ.get(_INHERITED)


def join_run(path: str | None) -> None:
    """Let this process, which another one leads, print to the log file of the run, and keep quiet but for errors.

    Its descriptors are redirected, since it has inherited those of the terminal, which shows the line of the run.

    Args:
        path: That of :func:`shared_log`.
    """
    if path:
        with open(path, "ab") as file:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(file.fileno(), stream.fileno())
    LOGGER.setLevel(logging.ERROR)


@contextlib.contextmanager
def _redirected(out: _Tee, err: _Tee) -> Iterator[None]:
    """Let the standard streams, and loggers that hold on to them, lead to ``out`` and ``err``."""
    moved: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
    to_err = {id(err.before), id(sys.__stderr__)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] not in _OTHERS or not isinstance(logger, logging.Logger):
            continue
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:  # not to a file, and not one that collects what it gets
                moved.append((handler, handler.stream))
                handler.stream = err if id(handler.stream) in to_err else out
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out.before, err.before
        for handler, stream in moved:
            handler.stream = stream


@contextlib.contextmanager
def _our_lines_to(file: TextIO) -> Iterator[None]:
    """Write all of our lines to the log file, also those below the level that is shown."""
    handlers: list[logging.Handler] = [_OurLines(file)]
    if LOGGER.propagate:
        handlers.append(_Onward(LOGGER.getEffectiveLevel()))
    with handled_by(*handlers, level=logging.DEBUG):
        yield


@contextlib.contextmanager
def _warnings_of(name: str, shown_as: str, file: Path) -> Iterator[None]:
    """Show the warnings of another package's logger among ours."""
    logger, handler = logging.getLogger(name), _OtherWarnings(shown_as, file)
    logger.handlers.insert(0, handler)  # before its own, which changes the message of a record
    try:
        yield
    finally:
        logger.removeHandler(handler)
