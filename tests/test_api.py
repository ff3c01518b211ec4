"""dfssd from Python."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import dfssd
from dfssd import api, pipeline
from dfssd.commands.options import command_line
from dfssd.config import parse_arguments
from tests.conftest import write_images
from tests.detection.recorded_run import results, write_run
from tests.disks import mounted
from tests.tiny_detection import TINY

SMALL = {
    "recipe": "baseline",
    "teacher": None,
    "student": TINY,
    "epochs": 1,
    "imgsz": 64,
    "batch": 4,
    "device": "cpu",
    "workers": 0,
    "amp": False,
}


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Calls :func:`dfssd.train`, which stops before it opens a run; returns the configuration and the command."""
    seen = []

    class Stop(Exception):
        pass

    def stop(config, command):
        seen.append((config, command))
        raise Stop

    monkeypatch.setattr(pipeline, "open_run", stop)
    monkeypatch.chdir(tmp_path)

    def call(**keys):
        with pytest.raises(Stop):
            dfssd.train(**keys)
        return seen[-1]

    return call


def test_a_place_that_cannot_be_written_is_an_error_of_the_user(squares, small_disk: Path) -> None:
    """In which a run would overwrite another one, whose folder is locked before anything in it is read."""
    (small_disk / "mine").mkdir()
    (small_disk / "mine" / "run.yaml").write_text("", encoding="utf-8")
    assert mounted(small_disk, "-o", "remount,ro")
    with pytest.raises(
        dfssd.UserError, match=r"^.*mine/\.lock cannot be read or written .Read-only file system.*again$"
    ):
        dfssd.train(data=squares, project=small_disk, name="mine", exist_ok=True, **SMALL)


@pytest.mark.train
def test_whole_run(squares, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = dfssd.train(data=squares, project="runs", name="mine", **SMALL)
    assert run.folder == (tmp_path / "runs" / "mine").resolve()
    assert run.results.stages[-1].name == "report" and run.results.test["baseline"].images == 4
    assert run.results.to_json() == json.loads((run.folder / "results.json").read_text())
    assert (run.weights / "baseline.pt").is_file()
    assert run.results.run.command.startswith(f"dfssd data={squares} project=runs name=mine")
    assert dfssd.read_run("runs/mine") == run.results == dfssd.read_run(run.folder / "results.json")
    assert dfssd.open_run("runs/mine") == run and run.report.is_file()
    with pytest.raises(dfssd.UserError, match="mine has no student"):
        _ = run.student


def test_finished_run_is_opened_and_compared(tmp_path) -> None:
    for name, score in (("labels", 0.38), ("mine", 0.412)):
        write_run(tmp_path / name, results(student=score))
    run = dfssd.open_run(tmp_path / "mine")
    assert run.student == tmp_path / "mine" / "weights" / "student.pt" and run.results.test["student"].map50_95 == 0.412
    assert not (run.folder / "report.html").exists()
    written = run.report
    assert written.read_text(encoding="utf-8").startswith("<!doctype html>")
    moment = written.stat().st_mtime_ns
    assert run.report.stat().st_mtime_ns == moment, "only a report that is missing is written"
    compared = run.compare(tmp_path / "labels", out=tmp_path / "out")
    assert [network.score("map50_95") for network in compared.networks] == [0.412, 0.38]
    assert compared.networks[0].name == "mine" and "| labels |" in str(compared)
    assert str(compared) in (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    teachers = run.compare(dfssd.open_run(tmp_path / "labels"), role="teacher")
    assert [network.role for network in teachers.networks] == ["teacher", "teacher"]


def test_what_cannot_be_compared_is_said(tmp_path) -> None:
    run = dfssd.open_run(write_run(tmp_path / "mine", results()))
    with pytest.raises(dfssd.UserError, match="compare needs another run"):
        run.compare()
    with pytest.raises(dfssd.UserError, match="gone"):
        run.compare(tmp_path / "gone")
    with pytest.raises(dfssd.UserError, match="gone"):
        dfssd.open_run(tmp_path / "gone")


def test_rejected_run_is_one_exception_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dfssd.UserError, match=r"^unknown key 'epoch'; did you mean 'epochs'\?$"):
        dfssd.train(data="demo", epoch=3)
    with pytest.raises(dfssd.UserError, match="nowhere"):
        dfssd.train(**{**SMALL, "data": "nowhere"})
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_sections_are_mappings_or_dotted_names(given) -> None:
    nested, _ = given(data="demo", pseudo={"mode": "online", "tau0": 0.25}, hwjs={"weight": 2}, epochs=3)
    dotted, _ = given(data="demo", epochs=3, **{"pseudo.mode": "online", "pseudo.tau0": 0.25, "hwjs.weight": 2})
    assert nested.own == dotted.own and nested.terms == dotted.terms and nested.train == dotted.train
    assert nested["pseudo.mode"] == "online" and nested["pseudo.tau0"] == 0.25
    assert nested.terms["hwjs"]["weight"] == 2 and nested.train == {"epochs": 3}


def test_names_of_the_command_line_mean_the_same(given) -> None:
    config, _ = given(dataset="demo", pseudo="online", teacher_model=None, teacher_kind="ema")
    assert config["data"] == "demo" and config["pseudo.mode"] == "online" and config["teacher"] is None


def test_recorded_command_asks_for_the_same(given) -> None:
    keys = {
        "data": Path("my photos"),
        "labeled": 0.1,
        "baseline": False,
        "limit": None,
        "split_ratio": (0.6, 0.2, 0.2),
        "names": ["deep hole", "it's"],
        "device": "cpu",
        "name": "007",
        "optimizer": "AdamW",
        "lr0": 1e-3,
    }
    config, command = given(**keys)
    program, *words = shlex.split(command)
    assert program == "dfssd"
    assert parse_arguments(words) == config.given
    assert config["split_ratio"] == [0.6, 0.2, 0.2] and config["data"] == "my photos"


def test_none_is_written_as_the_word() -> None:
    assert command_line("dfssd", {"teacher": None, "name": "a b"}) == "dfssd teacher=none 'name=a b'"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pseudo": {"mode": "online"}, "pseudo.mode": "offline"}, r"pseudo\.mode is given twice"),
        ({"data": "demo", "dataset": "demo"}, "data is given twice"),
        ({"data": "demo", "labeled": "0.1"}, r"labeled=0\.1 must be a share"),
        ({"data": object}, "data=<class 'object'>: a value is a number"),
        ({"data": "demo", "names": ["a", {1}]}, r"names=\{1\}: a value is"),
        ({"data": "demo", "steps": [1, 1]}, "steps= is a protocol of many runs"),
    ],
)
def test_mistakes(keys, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dfssd.UserError, match=message):
        dfssd.train(**keys)
    assert not list(tmp_path.iterdir())


def test_what_is_not_a_run_is_reported(tmp_path) -> None:
    with pytest.raises(dfssd.UserError, match=r"results\.json does not exist: give the folder of a run"):
        api.read_run(tmp_path / "gone")
    record = write_images(tmp_path / "set", 1, seed=1)[0].with_name("results.json")
    for text, message in (("{", "cannot be read"), ("[]", "not the record of a run"), ("{}", "not the record")):
        record.write_text(text, encoding="utf-8")
        with pytest.raises(dfssd.UserError, match=message):
            api.read_run(record.parent)
