"""A run tells nobody anything: every connection of a process, by Python or native code, is recorded and counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import ImageFont

from dfssd.process import SILENT, environment
from dfssd.trust.silence import _font
from tests.test_pipeline import arguments

SOURCE = Path(__file__).with_name("connections.c")

UNSET = {*SILENT, "YOLO_CONFIG_DIR", "CI"}
"""Not taken over from whoever runs the tests."""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory) -> Path:
    """The library that records connections."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("connections of native code are recorded on Linux, with a compiler")
    library = tmp_path_factory.mktemp("recorder") / "connections.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def connections(
    words: Sequence[str], recorder: Path, folder: Path, variables: Mapping[str, str] | None = None
) -> tuple[list[str], str]:
    """What a process of Python, new on its machine, has looked up or connected to, and what it printed."""
    log = folder / "connections.txt"
    kept = {name: value for name, value in environment().items() if name not in UNSET}
    own = {
        "LD_PRELOAD": str(recorder),
        "CONNECTIONS": str(log),
        "HOME": str(folder / "home"),
        "YOLO_CONFIG_DIR": str(folder),
    }
    (folder / "home").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**kept, **own, **(variables or {})}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else [], done.stdout + done.stderr


@pytest.mark.train
def test_the_recorder_sees_what_goes_out_and_what_stays(recorder: Path, tmp_path: Path) -> None:
    code = """
import socket, urllib.request
for ask in (
    lambda: urllib.request.urlopen("http://example.com"),
    lambda: socket.socket().connect(("192.0.2.1", 80)),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.2", 53)),
):
    try: ask()
    except OSError as e: print("refused")
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
socket.socketpair()
"""
    seen, output = connections(["-c", code], recorder, tmp_path)
    assert seen == ["lookup example.com", "connect 192.0.2.1", "send 192.0.2.2"]
    assert output.split() == ["refused"] * 3


@pytest.mark.train
def test_a_run_connects_to_nobody(recorder: Path, squares: Path, tmp_path: Path) -> None:
    """From import to export, with plots, on a machine on which none of the packages has ever run; then its labels.

    Ultralytics takes an apostrophe out of a path, and then looks for the file at GitHub.
    """
    place = tmp_path / "line 3's"
    place.mkdir()
    words = arguments(squares, place, "epochs=1", "plots=true", "name=silent", "baseline=false", "guard=false")
    seen, output = connections(["-m", "dfssd", *words], recorder, place)
    assert seen == [], output
    run = place / "runs" / "silent"
    assert (run / "report.html").is_file() and (run / "deploy" / "student.onnx").is_file()
    assert not [file for file in (place / "home").rglob("*") if "microsoft" in str(file).lower()]
    photos = str(squares.parent)
    seen, output = connections(["-m", "dfssd", "label", photos, f"model={run}", "out=its labels'"], recorder, place)
    assert seen == [] and (place / "its labels'" / "manifest.json").is_file(), output


@pytest.mark.train
def test_what_is_asked_for_by_name_is_fetched(recorder: Path, squares: Path, tmp_path: Path) -> None:
    """The same process without a network: it tries, and ends in one line."""
    code = """
import sys
from dfssd.__main__ import main
print("exit code", main())
"""
    words = arguments(squares, tmp_path, "teacher=yolov8s.pt")
    seen, output = connections(["-c", code, *words], recorder, tmp_path)
    assert "exit code 2" in output and "teacher=yolov8s.pt is not here and could not be downloaded" in output
    assert {line.split()[1] for line in seen} == {"github.com"}


def test_fonts_are_those_of_this_machine() -> None:
    for name in ("Arial.ttf", "Arial.Unicode.ttf", "no font of this name.ttf"):
        file = _font(name)
        assert os.path.isfile(file)
        assert ImageFont.truetype(str(file), 12).getlength("Kratzer äß") > 0
