"""The whole command line on two CPU processes, started by the engine of torchrun: a node of two, and two nodes of one.

The processes are forked from the server of :mod:`tests.processes`, not started anew; all else is as torchrun does it.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dfssd.cli import main
from dfssd.config import parse_arguments
from dfssd.distributed import place
from dfssd.distributed.place import Place
from dfssd.errors import UserError
from dfssd.hardware import check_device
from dfssd.pipeline import open_run
from dfssd.pseudo_labels.labeling import label_images
from dfssd.results.record import BoxRecord, read_run
from dfssd.runs.configure import configure
from dfssd.trainers.results_csv import read_results_csv
from tests.configured import DEFAULTS
from tests.distributed.engine import ended, said, started, until
from tests.tiny_detection import TINY

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def words(squares: Path, teacher_file: Path, folder: Path) -> list[str]:
    return [
        f"data={squares}", f"teacher={teacher_file}", f"student={TINY}", "device=cpu", "imgsz=64", "batch=4",
        "epochs=4", "batches_per_epoch=2", "amp=false", "nbs=4", "val_every=1", "plots=false", "selftest_steps=1",
        "pseudo.tau_low=0.01", "pseudo.tau0=0.1", f"project={folder}", "name=run",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def killed(words: list[str], folder: Path) -> tuple[list[int], list[list[str]]]:
    """Two nodes of one process; the second process is killed while the student is trained."""
    table = folder / "run" / "train" / "student" / "results.csv"
    agents = started(words, folder, nodes=2, per_node=1)
    until(lambda: table.exists() and len(read_results_csv(table)) >= 1, agents)
    os.kill(int((folder / "pid.1").read_text()), signal.SIGKILL)
    return ended(agents, 60), [said(folder, rank) for rank in (0, 1)]


def test_killed_process_ends_all_with_a_line(killed: tuple[list[int], list[list[str]]], folder: Path) -> None:
    codes, (first, second) = killed
    assert all(codes) and second == []
    assert first[-1] == (
        "error: another process of this run has ended; what is finished is kept, and resume=run goes on"
    )
    assert not [line for line in first if "Traceback" in line] and sum(line.startswith("error") for line in first) == 1
    assert read_run(folder / "run").stage("student") is None


@pytest.fixture(scope="module")
def resumed(killed: Any, folder: Path) -> tuple[list[int], list[list[str]]]:
    """The same run goes on as two processes of one node."""
    codes = ended(started([f"resume={folder / 'run'}"], folder, nodes=1, per_node=2))
    return codes, [said(folder, rank) for rank in (0, 1)]


def test_resume_finishes_the_run_with_other_nodes(resumed: Any, folder: Path) -> None:
    codes, (first, second) = resumed
    assert codes == [0], first[-5:]
    assert second == [], "the first process alone shows something"
    assert [(folder / f"kept.{rank}").read_text() for rank in (0, 1)] == ["0 0"] * 2, "both have freed the images"
    assert any(line.startswith("student: continuing after epoch") for line in first)
    record = read_run(folder / "run")
    assert record.finished and record.training["student"].epochs_done == record.training["baseline"].epochs_done == 4
    assert record.training["student"].optimizer_steps == record.training["baseline"].optimizer_steps
    assert len(read_results_csv(folder / "run" / "train" / "student" / "results.csv")) == 4
    assert [path.name for path in folder.glob("run*")] == ["run"], "the processes have made one folder"
    assert isinstance(record, BoxRecord) and record.distill
    health = record.distill.health
    assert len(health) == 4 and all(epoch.accepted for epoch in health)
    log = (folder / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count("student: done") == 1 and "Traceback" not in log.split("--- ")[-1]


def test_labels_of_two_processes_are_those_of_one(resumed: Any, folder: Path, tmp_path: Path) -> None:
    run, threads = folder / "run", torch.get_num_threads()
    torch.set_num_threads(1)
    settings = json.loads((run / "pseudo" / "predictions.json").read_text(encoding="utf-8"))
    rule = replace(DEFAULTS.pseudo, tau_low=0.01, tau0=0.1)
    images = [Path(line) for line in (run / "splits" / "train_unlabeled.txt").read_text(encoding="utf-8").splitlines()]
    label_images(
        run / "weights" / "teacher.pt", images, tmp_path / "alone", names=settings["names"], imgsz=64, batch=4,
        device="cpu", rule=rule,
    )  # fmt: skip
    torch.set_num_threads(threads)
    alone = json.loads((tmp_path / "alone" / "predictions.json").read_text(encoding="utf-8"))
    assert sum(len(image["boxes"]) for image in alone["images"]) > 0
    assert alone == settings


def test_error_of_the_first_process_is_the_only_line(words: list[str], folder: Path) -> None:
    """In a stage that it does alone, for which the other one waits."""
    empty = folder / "empty.yaml"
    empty.write_text("train: nowhere\nval: nowhere\nnames: [a]\n", encoding="utf-8")
    bad = [word for word in words if not word.startswith(("data=", "name=", "teacher="))]
    bad += [f"data={empty}", f"teacher={TINY}", "name=bad"]
    codes = ended(started(bad, folder, nodes=1, per_node=2))
    assert all(codes) and said(folder, 1) == []
    assert [line for line in said(folder, 0) if line.startswith("error: ")] == said(folder, 0)[-1:]
    assert not (folder / "bad" / "splits").exists()


@pytest.fixture
def first_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_place", Place(rank=0, world=2, local_rank=0, local_world=2))


@pytest.mark.parametrize("batch", [5, 2])
def test_batch_that_does_not_divide(words: list[str], first_of_two: None, batch: int) -> None:
    given = parse_arguments([*[word for word in words if not word.startswith("batch=")], f"batch={batch}"])
    with pytest.raises(UserError, match=f"batch={batch} does not divide among 2 processes: choose a multiple of 2, at"):
        open_run(configure(given), "")


def test_several_gpus_have_to_be_as_many_as_processes(first_of_two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert check_device(None) == "0,1" and check_device("2,0") == "2,0"
    for wrong in ("0", "0,1,2"):
        with pytest.raises(UserError, match="torchrun has started 2 processes on this machine: name as many GPUs"):
            check_device(wrong)


def test_other_commands_are_not_shared(first_of_two: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs/x"]) == 2
    assert "only a run is shared by several processes" in capsys.readouterr().err
