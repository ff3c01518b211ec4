"""Several GPUs of one machine: the command line starts itself once for each."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import dfssd
from dfssd.cli import main
from dfssd.config import parse_arguments
from dfssd.distributed import launch
from dfssd.distributed.crew import REPORT
from dfssd.errors import UserError
from dfssd.files import write_yaml
from dfssd.pipeline import open_run, processes_to_start
from dfssd.runs.configure import configure
from tests.tiny_detection import TINY


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def words(squares: Path, tmp_path: Path) -> list[str]:
    return ["recipe=baseline", f"data={squares}", f"student={TINY}", "device=0,1", f"project={tmp_path}"]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[list[str], int]]:
    """What is launched, instead of processes on GPUs that are not there; each names a run folder."""
    calls: list[tuple[list[str], int]] = []

    def start(words: Sequence[str], processes: int) -> int:
        calls.append((list(words), processes))
        if report := os.environ.get(REPORT):
            Path(report).write_text(str(tmp_path / "run"), encoding="utf-8")
        return 2

    monkeypatch.setattr(launch, "launch", start)
    return calls


def test_command_starts_its_own_line_for_each_gpu(two_gpus: None, words: list[str], launched: Any) -> None:
    assert main(words) == 2, "the exit code of the processes"
    assert launched == [(words, 2)]


def test_python_interface_does_so_too(two_gpus: None, words: list[str], launched: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(dfssd.api, "open_run", lambda folder: folder)
    keys = dict(word.split("=", 1) for word in words)
    with pytest.raises(UserError, match="was not finished, see above"):
        dfssd.train(**keys)
    monkeypatch.setattr("dfssd.results.record.is_finished", lambda folder: True)
    assert dfssd.train(**keys) == Path(keys["project"]) / "run"
    assert launched == [(words, 2)] * 2 and REPORT not in os.environ


def test_resumed_run_goes_on_with_its_devices(two_gpus: None, tmp_path: Path) -> None:
    write_yaml(tmp_path / "run.yaml", {"train": {"device": "0,1"}})
    given = parse_arguments([f"resume={tmp_path}"])
    assert processes_to_start(configure(given)) == 2
    assert processes_to_start(configure({**given, "device": "cpu"})) == 1


def test_who_does_not_start_processes_takes_one_device(two_gpus: None, words: list[str]) -> None:
    """Such as a grid, which trains each cell in its own process."""
    with pytest.raises(UserError, match=r"device=0,1: several GPUs are used by a run of the command line"):
        open_run(configure(parse_arguments(words)), "")


@pytest.mark.train
def test_processes_show_one_line_and_torchrun_none(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Really started, with an error that is found before anything large is imported."""
    before = dict(os.environ)
    with pytest.raises(UserError, match="the run on 2 devices has ended with exit code 2, see above"):
        launch.launch_for_folder(["data=set", "nothing=1"], 2)
    shown = capfd.readouterr()
    assert re.fullmatch(r"error: .*nothing.*\n", shown.err) and shown.out == ""
    assert dict(os.environ) == before
