"""The mark ``train``: who does not have it cannot train, nor start Python, nor compute for long."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.engine.trainer import BaseTrainer

from tests import processes
from tests.costs import CostWatch


def test_training_needs_the_mark() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"trains a network: mark it with @pytest\.mark\.train"):
        BaseTrainer.train(None)


def test_python_process_needs_the_mark() -> None:
    with pytest.raises(pytest.fail.Exception, match="starts a Python process"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with pytest.raises(pytest.fail.Exception, match="starts a process"):
        processes.PROCESSES.Process(target=print).start()
    assert subprocess.run(["git", "--version"], check=False, capture_output=True).returncode == 0, "others are free"


@pytest.mark.train
def test_marked_test_may(tmp_path) -> None:
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0
    found = processes.run_without_dfssd("import sys; print('own', 'ultralytics' in sys.modules); sys.exit(3)", tmp_path)
    assert found.returncode == 3 and "own" in found.output
    assert processes.run_without_dfssd("import dfssd", tmp_path).returncode == 1


@pytest.mark.parametrize(("marked", "limit", "fails"), [(False, 0, True), (False, 60, False), (True, 0, False)])
def test_long_computation_needs_the_mark(marked: bool, limit: float, fails: bool) -> None:
    watch = CostWatch(limit)
    item: Any = SimpleNamespace(get_closest_marker=lambda name: name if marked else None)
    watch.item = item
    around: Any = CostWatch.pytest_runtest_call(watch, item)
    next(around)
    sum(range(10_000))
    with pytest.raises(pytest.fail.Exception if fails else StopIteration, match="computes" if fails else None):
        around.send("result")
