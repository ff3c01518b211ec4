"""What commands set in their process, and what importing the package leaves alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dfssd import process, resources

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "YOLO_AUTOINSTALL",
    "ULTRALYTICS_SAFE_LOAD",
    "OMP_NUM_THREADS",
    *process.SILENT,
)


@pytest.mark.train
def test_import_is_cheap_and_leaves_the_environment_alone() -> None:
    code = """
import json, os, sys
before = dict(os.environ)
import dfssd
print(json.dumps([before == dict(os.environ), sorted({m.split(".")[0] for m in sys.modules}), dfssd.__all__]))
"""
    unset = {k: v for k, v in os.environ.items() if k not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=unset, capture_output=True, text=True, check=True)
    same, modules, names = json.loads(done.stdout)
    assert same
    assert not {"torch", "ultralytics", "numpy", "yaml", "psutil"} & set(modules)
    assert names == ["Run", "UserError", "check", "open_run", "read_run", "train"]


def test_all_cores_and_no_installation_unless_the_user_sets_it(monkeypatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "x")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    process.prepare_process()
    assert [os.environ[name] for name in NAMES] == ["false", "1", "3", *process.SILENT.values()]
    for name in NAMES:
        monkeypatch.setenv(name, "7")
    process.prepare_process()
    assert [os.environ[name] for name in NAMES] == ["7"] * len(NAMES)


@pytest.mark.parametrize(("cores", "expected"), [(4, "2"), (None, "2")])
def test_no_more_cores_than_the_process_may_use(monkeypatch, cores: int | None, expected: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "x")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    process.prepare_process()
    assert os.environ["OMP_NUM_THREADS"] == expected


@pytest.mark.train
@pytest.mark.parametrize("entry", [["train.py"], ["-m", "dfssd"], ["console script"]])
def test_every_start_of_the_command_line_prepares_its_process(entry: list[str]) -> None:
    """Before numpy and torch are imported, which read the number of threads on import."""
    code = """
import importlib, os, re, runpy, sys
entry = sys.argv[1:]
sys.argv = ["program", "data=demo", "epoch=3"]
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in {"numpy", "torch", "ultralytics"}:
            raise SystemExit(f"{name}: {os.environ.get('OMP_NUM_THREADS')}, {os.environ.get('YOLO_AUTOINSTALL')}")
sys.meta_path.insert(0, Watch())
if entry[0] == "-m":
    runpy.run_module(entry[1], run_name="__main__")
elif entry[0].endswith(".py"):
    runpy.run_path(entry[0], run_name="__main__")
else:  # as the script that pip writes for the command
    module, _, function = re.search('^dfssd = "(.+)"$', open("pyproject.toml").read(), re.M)[1].partition(":")
    sys.exit(getattr(importlib.import_module(module), function)())
"""
    unset = {k: v for k, v in os.environ.items() if k not in NAMES}
    done = subprocess.run([sys.executable, "-c", code, *entry], cwd=ROOT, env=unset, capture_output=True, text=True)
    assert re.fullmatch(r"(numpy|torch|ultralytics): [1-9]\d*, false\n", done.stderr), done.stderr


def test_child_of_a_checkout_finds_the_package_and_that_of_an_installed_one_is_left_alone(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert process.environment() == {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}elsewhere"}
    monkeypatch.delenv("PYTHONPATH")
    assert process.environment()["PYTHONPATH"] == str(ROOT)
    monkeypatch.setattr(resources, "source_tree", lambda: None)
    assert process.environment() == dict(os.environ)
