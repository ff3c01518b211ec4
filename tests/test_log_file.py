"""The log file of a run: everything that others print goes there, and our own lines as well as to the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ultralytics.utils import LOGGER as ULTRALYTICS
from ultralytics.utils import TQDM

from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.log_file import NAME, logged_to, shared_log


def log_of(folder: Path) -> list[str]:
    return (folder / NAME).read_text(encoding="utf-8").splitlines()


def say_all() -> None:
    print("\x1b[1mlayer\x1b[0m table")
    sys.stderr.write("a warning of Python\n")
    ULTRALYTICS.info("Validating runs/x/weights/writing_best.pt...")
    LOGGER.info("stage 2/9 teacher")
    LOGGER.debug("steps took 3 s")


def test_terminal_shows_our_lines_only(tmp_path: Path, capsys) -> None:
    stream = ULTRALYTICS.handlers[0].stream
    with logged_to(tmp_path, "dfssd data=demo", shown=False):
        say_all()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("stage 2/9 teacher\n", "")
    title, *lines = log_of(tmp_path)
    assert title.startswith("--- ") and title.endswith(" dfssd data=demo")
    assert lines == [
        "layer table",
        "a warning of Python",
        "Validating runs/x/weights/best.pt...",
        "[dfssd] stage 2/9 teacher",
        "[dfssd] steps took 3 s",
    ]
    assert ULTRALYTICS.handlers[0].stream is stream
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n" and len(log_of(tmp_path)) == 6


def test_with_verbose_everything_is_shown_too(tmp_path: Path, capsys) -> None:
    with logged_to(tmp_path, "", shown=True):
        say_all()
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "\x1b[1mlayer\x1b[0m table",
        "Validating runs/x/weights/writing_best.pt...",
        "[dfssd] stage 2/9 teacher",
    ]
    assert shown.err == "a warning of Python\n" and log_of(tmp_path)[1] == "layer table"


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for number in (1, 2):
        with logged_to(tmp_path, f"session {number}", shown=False):
            print(f"line {number}")
    assert [line.rpartition("  ")[2][-9:] for line in log_of(tmp_path)] == [
        "session 1",
        "line 1",
        "session 2",
        "line 2",
    ]


def test_progress_bar_leaves_one_line(tmp_path: Path) -> None:
    with logged_to(tmp_path, "", shown=False):
        bar = TQDM(range(3), desc="train", mininterval=0)
        for number in bar:
            bar.set_description(f"epoch 1, batch {number + 1}")
        print("next")
    _, line, after = log_of(tmp_path)
    assert line.startswith("epoch 1, batch 3: 100% ") and " 3/3 " in line and after == "next"
    assert "\r" not in (tmp_path / NAME).read_text(encoding="utf-8") and "\x1b" not in line


def test_warning_of_ultralytics_is_shown_once(tmp_path: Path, capsys) -> None:
    with logged_to(tmp_path, "", shown=False):
        for _ in range(3):
            ULTRALYTICS.warning("CUDA out of memory with batch=16.\nReducing to batch=8.")
        for number in range(9):
            ULTRALYTICS.warning(f"odd {number}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "warning: Ultralytics: CUDA out of memory with batch=16. Reducing to batch=8."
    assert len(lines) == 6 and lines[-1] == f"warning: Ultralytics: more in {tmp_path / NAME}"
    assert sum("Reducing to batch=8" in line for line in log_of(tmp_path)) == 4  # three of Ultralytics, one of ours
    ULTRALYTICS.warning("later")
    assert "dfssd" not in capsys.readouterr().out


@pytest.mark.train
def test_program_that_uses_the_package_gets_what_it_asked_for(tmp_path: Path) -> None:
    """Without a command: its root handler gets our lines from its own level on, the log file gets all."""
    code = f"""
import logging, sys
from pathlib import Path
from dfssd.log import LOGGER
from dfssd.log_file import logged_to
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
with logged_to(Path({str(tmp_path)!r}), "", shown=False):
    LOGGER.info("progress")
    LOGGER.debug("detail")
    print("of others")
assert LOGGER.propagate and LOGGER.level == 0 and not LOGGER.handlers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == "INFO progress\n"
    assert log_of(tmp_path)[1:] == ["[dfssd] progress", "[dfssd] detail", "of others"]


def test_bug_is_in_the_log_and_bad_input_is_not(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), logged_to(tmp_path, "", shown=False):
        1 / 0  # noqa: B018
    assert log_of(tmp_path)[-1] == "ZeroDivisionError: division by zero"
    with pytest.raises(UserError), logged_to(tmp_path, "", shown=False):
        raise UserError("wrong")
    assert log_of(tmp_path)[-1].startswith("--- ")


def test_stream_that_was_held_on_to_leads_back(tmp_path: Path, capsys) -> None:
    with logged_to(tmp_path, "", shown=False):
        handler = logging.StreamHandler(sys.stdout)
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "late", None, None))
    assert capsys.readouterr().out == "late\n" and len(log_of(tmp_path)) == 1


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose another place"), logged_to(tmp_path / "gone", "", shown=False):
        pass


@pytest.mark.train
def test_processes_of_a_training_on_several_devices_print_to_the_log(tmp_path: Path, capfd) -> None:
    """Also below Python, where one has inherited the terminal; they keep our lines back, since the first shows them."""
    child = "import os, sys\nfrom dfssd.log import LOGGER, console\nfrom dfssd.log_file import join_run\n"
    child += "with console():\n    join_run(sys.argv[1])\n    os.write(1, b'table\\n')\n"
    child += "    LOGGER.warning('no')\n    LOGGER.error('broken')\n"
    with logged_to(tmp_path, "", shown=False):
        log = shared_log()
        assert log == str((tmp_path / NAME).resolve())
        subprocess.run([sys.executable, "-c", child, log], check=True, env={**os.environ})
    assert shared_log() is None
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
    assert log_of(tmp_path)[1:] == ["table", "broken"]
