"""One process at a time in a run folder: who is in it, locks of killed processes, what they left behind."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import dfssd
from dfssd.cli import main
from dfssd.distributed.crew import REPORT
from dfssd.errors import UserError
from dfssd.pipeline import open_run
from dfssd.runs import ownership
from dfssd.runs.configure import configure
from dfssd.runs.folder import RunFolder
from dfssd.runs.ownership import LOCK, OWNER, Ownership
from tests import processes
from tests.detection.recorded_run import results, write_run


def hold(folder: Path) -> None:
    """Take the folder, leave halves of files, and die."""
    Ownership(folder)
    for name in (f".student.{os.getpid()}.part.onnx", "writing_last.pt", f".splits.{os.getpid()}.part"):
        (folder / name).write_bytes(b"half")
    os._exit(9)


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    config = configure({"data": "demo", "teacher": "yolov8s.yaml", "student": "yolov8n.yaml", "name": "mine"})
    return RunFolder.create(config, "the line").path


def test_second_process_is_refused_in_one_line_and_changes_nothing(run: Path, capsys) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    owned = Ownership(run)
    assert main(["resume=runs/mine"]) == 2
    line = f"error: runs/mine is in use by process {os.getpid()} on {platform.node()}: wait until it ends, or stop it\n"
    assert capsys.readouterr().err == line
    assert main(["data=demo", "teacher=yolov8s.yaml", "student=yolov8n.yaml", "name=mine", "exist_ok=true"]) == 2
    assert capsys.readouterr().err == line, "nor is it overwritten"
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name not in {LOCK, OWNER}} == before
    owned.release()
    owned.release()
    assert not (run / OWNER).exists()
    other = Ownership(run)
    owned.release()
    assert (run / OWNER).exists(), "released twice, it does not take it from the next one"
    other.release()


def test_a_run_that_cannot_be_opened_leaves_no_folder(tmp_path: Path, monkeypatch) -> None:
    """Of which, for instance, the program that has started it cannot be told."""
    monkeypatch.chdir(tmp_path)
    keys = {"data": "demo", "teacher": "yolov8s.yaml", "student": "yolov8n.yaml", "device": "cpu", "name": "mine"}
    monkeypatch.setenv(REPORT, str(tmp_path / "file" / "folder"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|directory"):
        open_run(configure(keys), "the line")
    assert not (tmp_path / "runs" / "mine").exists()
    monkeypatch.setenv(REPORT, str(tmp_path / "folder"))
    opened = open_run(configure(keys), "the line")
    assert opened.folder.path == tmp_path / "runs" / "mine" and opened.folder.owned
    opened.folder.owned.release()


def test_a_report_is_not_written_beside_another_process(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "mine", results())
    with Ownership(run):
        assert main(["report", "mine"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: mine is in use by process {os.getpid()} on ")
        with pytest.raises(UserError, match="mine is in use by process"):
            dfssd.open_run(run).report  # noqa: B018
        assert not (run / "report.html").exists()
    assert main(["report", "mine/results.json"]) == 0 and (run / "report.html").exists() and not (run / OWNER).exists()
    assert dfssd.open_run(run).report == run / "report.html"


@pytest.mark.train
def test_folder_of_a_killed_process_is_free_and_cleared_of_halves(run: Path, tmp_path: Path) -> None:
    for name in (f".kept.{os.getpid()}.part.json", "kept.part", ".hidden.json"):
        (run / name).write_bytes(b"whole")
    assert processes.run(hold, run, folder=tmp_path).returncode == 9
    assert (run / OWNER).exists() and (run / "writing_last.pt").exists()
    owned = Ownership(run)
    assert json.loads((run / OWNER).read_text(encoding="utf-8"))["pid"] == os.getpid()
    left = {path.name for path in run.iterdir()} - {LOCK, OWNER, "run.yaml", "results.json"}
    assert left == {f".kept.{os.getpid()}.part.json", "kept.part", ".hidden.json"}, "others write, or it is no half"
    owned.release()


@pytest.mark.train
def test_processes_that_a_killed_one_had_started_are_waited_for(run: Path, monkeypatch) -> None:
    """They have its lock as long as they live."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from dfssd.files import locked\n"
        "with locked(sys.argv[1], wait=False) as held:\n"
        "    print(held, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code, str(run / LOCK), str(Path(ownership.__file__).parents[2])]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdin is not None and child.stdout.readline() == "True\n"
    record = {"pid": gone.pid, "host": platform.node(), "started": 1.0}
    (run / OWNER).write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(ownership, "PATIENCE", 0.3)
    with pytest.raises(UserError, match=f"process {gone.pid} on .* has ended, but not all processes that it had"):
        Ownership(run)
    (run / OWNER).write_text(json.dumps({**record, "host": "elsewhere"}), encoding="utf-8")
    with pytest.raises(UserError, match=f"in use by process {gone.pid} on elsewhere: wait"):
        Ownership(run)
    (run / OWNER).unlink()
    with pytest.raises(UserError, match="in use by another process: wait"):
        Ownership(run)
    child.communicate("")
    Ownership(run).release()


def test_without_locks_the_record_of_the_owner_decides(run: Path, monkeypatch, capsys) -> None:
    def none(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(ownership, "locked", none)
    owned = Ownership(run)
    assert "the file system of runs/mine has no locks" in capsys.readouterr().out
    with pytest.raises(UserError, match="in use by process"):
        Ownership(run)
    started = psutil.Process().create_time() - 100  # the same number, of a process of before
    record = {"pid": os.getpid(), "host": platform.node(), "started": started}
    (run / OWNER).write_text(json.dumps(record), encoding="utf-8")
    Ownership(run).release()
    owned.release()
    monkeypatch.setattr(
        ownership, "locked", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(errno.EIO, "broken"))
    )
    with pytest.raises(OSError, match="broken"):
        Ownership(run)
