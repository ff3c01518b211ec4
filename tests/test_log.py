"""The logger of a run and what the commands show of it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
import sys
from collections.abc import Callable, Iterator

import pytest

from dfssd.datasets.images.files import progress
from dfssd.log import LOGGER, changing_line, console, note


@pytest.fixture(autouse=True)
def shown_messages() -> None:
    """In place of the one for all tests: here nothing is shown unless the test asks for it."""


def say_all() -> None:
    LOGGER.debug("detail")
    LOGGER.info("prepare: 100%")
    LOGGER.warning("no box was accepted")
    LOGGER.error("export: torchscript failed")


def test_console_shows_marked_lines(capsys) -> None:
    with console():
        say_all()
    shown = capsys.readouterr()
    assert shown.out == "prepare: 100%\nwarning: no box was accepted\n"
    assert shown.err == "export: torchscript failed\n"


def test_output_goes_to_where_stdout_points_when_it_is_logged(monkeypatch) -> None:
    with console():
        later = io.StringIO()
        monkeypatch.setattr(sys, "stdout", later)
        LOGGER.info("a")
    assert later.getvalue() == "a\n"


def test_console_inside_a_console_does_not_repeat_and_does_not_end_it(capsys) -> None:
    with console():
        with console():
            LOGGER.info("a")
        LOGGER.info("b")
    assert capsys.readouterr().out == "a\nb\n"


def test_console_leaves_the_logger_as_it_was() -> None:
    before = (list(LOGGER.handlers), LOGGER.level, LOGGER.propagate)
    with pytest.raises(KeyError), console():
        assert not LOGGER.propagate
        raise KeyError
    assert (list(LOGGER.handlers), LOGGER.level, LOGGER.propagate) == before


@contextlib.contextmanager
def terminal(monkeypatch, **environment: str) -> Iterator[Callable[[], str]]:
    """The standard output is a terminal of 60 columns; yields what has appeared on it since it was last read."""
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    keyboard, screen = os.openpty()
    os.set_blocking(keyboard, False)
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    with open(screen, "w", encoding="utf-8") as out, contextlib.redirect_stdout(out):
        yield lambda: everything_in(keyboard)
    os.close(keyboard)


def everything_in(keyboard: int) -> str:
    """What a terminal holds, which comes in pieces."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            found += os.read(keyboard, 1 << 16)
    return found.decode()


def test_line_stays_below_the_others_and_disappears(monkeypatch) -> None:
    said = "stage 2/9 teacher  epoch 1/100"
    with terminal(monkeypatch) as shown, console():
        with changing_line(lambda: said) as live:
            assert live
            LOGGER.warning("no box was accepted")
            said = "stage 2/9 teacher  epoch 2/100 " + 9 * "and so on "
        text = shown()
    assert text.index("epoch 1/100") < text.index("warning: no box was accepted") < text.index("epoch 2/100")
    assert "and so o…" in text  # cut at the width of the terminal
    assert text.endswith("\x1b[2K")  # the line is erased


def test_error_goes_to_its_own_stream_and_the_line_comes_back(monkeypatch, capsys) -> None:
    with terminal(monkeypatch) as shown, console(), changing_line(lambda: "stage 1/9") as live:
        assert live and "stage 1/9" in shown()
        LOGGER.error("export: torchscript failed")
        assert "stage 1/9" in shown()
    assert capsys.readouterr().err == "export: torchscript failed\n"


def test_note_stands_behind_the_line(monkeypatch) -> None:
    assert not note("Reading images")
    with terminal(monkeypatch) as shown, console():
        with changing_line(lambda: "stage 1/9") as live:
            assert live and list(progress(range(600), "Reading images", 600)) == list(range(600))
            assert note("Reading labels")
        assert "stage 1/9  Reading labels" in shown()


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}])
def test_no_changing_line_in_automatic_checks_and_on_dumb_terminals(monkeypatch, environment: dict[str, str]) -> None:
    with terminal(monkeypatch, **environment) as shown, console(), changing_line(lambda: "stage 1/9") as live:
        assert not live
        LOGGER.info("prepare")
        assert shown() == "prepare\r\n"


def test_no_changing_line_in_a_file_or_without_a_command(monkeypatch, capsys) -> None:
    with terminal(monkeypatch), changing_line(lambda: "stage 1/9") as live:
        assert not live
    with console(), changing_line(lambda: "stage 1/9") as live:
        assert not live
    assert capsys.readouterr().out == ""


def test_without_a_command_it_is_standard_logging(capsys, caplog) -> None:
    """Nothing is printed by default; a configured handler gets levels and the name of the logger."""
    with caplog.at_level(logging.INFO, logger="dfssd"):
        say_all()
    assert capsys.readouterr().out == ""
    assert [(r.name, r.levelname) for r in caplog.records] == [
        ("dfssd", "INFO"),
        ("dfssd", "WARNING"),
        ("dfssd", "ERROR"),
    ]
