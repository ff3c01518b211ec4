"""The plans for a GPU: every command is accepted, waits for jobs there are, and runs with other values elsewhere."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from dfssd.benchmark import labeling, speed
from dfssd.benchmark.whole import OWN
from dfssd.config import parse_arguments
from dfssd.runs.configure import configure

ROOT = Path(__file__).resolve().parents[1]
PLANS = sorted((ROOT / "benchmarks" / "gpu").glob("*.json"))
JOBS = [(path.stem, job) for path in PLANS for job in json.loads(path.read_text(encoding="utf-8"))["jobs"]]


def test_there_are_plans() -> None:
    assert {path.stem for path in PLANS} == {"speed", "whole", "grid"}


@pytest.mark.parametrize(("plan", "job"), JOBS, ids=[f"{plan}-{job['name']}" for plan, job in JOBS])
def test_commands_are_accepted(plan: str, job: dict[str, Any]) -> None:
    python, script, *words = shlex.split(job["cmd"])
    assert python == "python3"
    if job["name"] == "before":  # by the code from before, which has its own arguments
        assert script == ".gpu/before/scripts/benchmark_speed.py"
        return
    assert (ROOT / script).is_file()
    given = parse_arguments(words)
    if script == "scripts/benchmark_labels.py":
        labeling.checked(given)
        return
    for key in {"train.py": [], "scripts/benchmark_speed.py": ["rounds", "out"]}.get(script, OWN):
        given.pop(key, None)
    if script == "scripts/benchmark_speed.py":
        speed.checked(given)
    else:
        configure(given)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_jobs_wait_for_jobs_before_them(path: Path) -> None:
    plan = json.loads(path.read_text(encoding="utf-8"))
    seen: set[str] = set()
    for job in plan["jobs"]:
        assert set(job) <= {"name", "cmd", "after", "slots"}
        assert job["name"] not in seen
        assert set(job.get("after", ())) <= seen
        seen.add(job["name"])
        assert not any(word.partition("=")[2].startswith("/") for word in shlex.split(job["cmd"]))
    assert plan["slots"] >= 1
    assert plan["threads"] >= 1


def test_grid_has_three_seeds_with_the_same_lists_and_teacher() -> None:
    jobs = {job["name"]: parse_arguments(shlex.split(job["cmd"])[2:]) for plan, job in JOBS if plan == "grid"}
    for seed in range(3):
        for cell in ("dfssd", "ultralytics"):
            given = jobs[f"{cell}{seed}"]
            assert given["seed"] == seed
            assert given["split"] == f"runs/baseline{seed}/splits"
            assert given["teacher"] == f"runs/teacher{seed}/weights/baseline.pt"
            assert given["epochs"] == jobs[f"baseline{seed}"]["epochs"]
        assert jobs[f"oracle{seed}"]["labeled"] == 1.0


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    loaded = runpy.run_path(str(ROOT / "scripts" / "run_plan.py"))
    loaded["main"].__globals__["ROOT"] = tmp_path
    return loaded


def test_values_are_replaced_where_a_command_gives_them(script: dict[str, Any]) -> None:
    command = "python3 train.py device=0 imgsz=416 teacher=a.pt"
    changes = {"device": "cpu", "epochs": "1", "two.teacher": "b.pt"}
    words = [sys.executable, "train.py", "device=cpu", "imgsz=416"]
    assert script["replaced"](command, "one", changes) == [*words, "teacher=a.pt"]
    assert script["replaced"](command, "two", changes) == [*words, "teacher=b.pt"]


def write_plan(folder: Path) -> Path:
    write = "python3 -c \"import sys; print(sys.argv[1]); sys.exit(sys.argv[1] == 'n=1')\""
    jobs = [
        {"name": "a", "cmd": f"{write} n=1"},
        {"name": "b", "cmd": f"{write} n=2"},
        {"name": "c", "after": ["a"], "cmd": f"{write} n=3"},
    ]
    file = folder / "plan.json"
    file.write_text(json.dumps({"slots": 1, "threads": 1, "jobs": jobs}))
    return file


@pytest.mark.train
def test_jobs_run_in_order_and_not_after_a_failure(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write_plan(tmp_path))
    assert script["main"]([file]) == 1
    lines = [line.partition(" after")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["a: exit code 1", "b: exit code 0", "c: not run, since a failed"]
    assert script["main"]([file, "n=5", "only=a,c"]) == 0
    assert (tmp_path / "runs" / "plan" / "c.log").read_text() == "n=5\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [(["only=x"], "only=x"), (["m=1"], "m="), (["b.m=1"], "b.m="), (["n"], "give key=value")],
)
def test_mistakes_are_one_line(
    script: dict[str, Any], tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["main"]([str(write_plan(tmp_path)), *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
