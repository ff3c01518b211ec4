"""The logger of a run and what the commands show of it."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from dfssd.log import LOGGER, console


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
    assert shown.out == "[dfssd] prepare: 100%\n[dfssd] warning: no box was accepted\n"
    assert shown.err == "[dfssd] export: torchscript failed\n"


def test_output_goes_to_where_stdout_points_when_it_is_logged(monkeypatch) -> None:
    with console():
        later = io.StringIO()
        monkeypatch.setattr(sys, "stdout", later)
        LOGGER.info("a")
    assert later.getvalue() == "[dfssd] a\n"


def test_console_inside_a_console_does_not_repeat_and_does_not_end_it(capsys) -> None:
    with console():
        with console():
            LOGGER.info("a")
        LOGGER.info("b")
    assert capsys.readouterr().out == "[dfssd] a\n[dfssd] b\n"


def test_console_leaves_the_logger_as_it_was() -> None:
    before = (list(LOGGER.handlers), LOGGER.level, LOGGER.propagate)
    with pytest.raises(KeyError), console():
        assert not LOGGER.propagate
        raise KeyError
    assert (list(LOGGER.handlers), LOGGER.level, LOGGER.propagate) == before


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
