"""Runs of a grid side by side: what waits for what, Ray tasks and jobs, and what becomes of a run that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml

from dfssd.benchmark import engines
from dfssd.benchmark.children import lives, run_child
from dfssd.benchmark.engines import RETRIES, Engine, Resources, Train, going_on, opened
from dfssd.config import parse_arguments
from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import intervals
from dfssd.files import read_json
from tests.benchmark.fake_runs import SMALL, FakeTrain, main, rows_of
from tests.benchmark.killed_runs import always_killed, dies_twice

ROOT = Path(__file__).resolve().parents[2]
RAY = find_spec("ray") is not None
JOBS = find_spec("submitit") is not None


class SideBySide(FakeTrain):
    """Notes who was trained at the same time as whom."""

    def __init__(self, seconds: float = 0.05) -> None:
        super().__init__()
        self.seconds, self.lock = seconds, threading.Lock()
        self.now, self.together = set[str](), set[frozenset[str]]()

    def __call__(self, words, log: Path) -> int:
        name = parse_arguments(list(words))["name"]
        with self.lock:
            self.now.add(name)
            self.together |= {frozenset((name, other)) for other in self.now - {name}}
        time.sleep(self.seconds)
        with self.lock:
            code = super().__call__(words, log)
            self.now.discard(name)
        return code


class Threads(Engine):
    """Two at once, in this process."""

    at_once = 2

    def __init__(self, make) -> None:
        self.make = make

    def attempt(self, words, log: Path) -> int:
        return self.make(going_on(words), log)


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small grid in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dfssd.benchmark.summary.intervals", partial(intervals, rounds=20))
    (tmp_path / "DATA.zip").touch()
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False), encoding="utf-8")
    return ["small.yaml", "data=DATA.zip"]


def make(words: Sequence[str], train: Train) -> int:
    return main([*words], train=train, check=lambda given: None)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[Threads]:
    """The engine of the next grid makes two runs at once."""
    made: list[Threads] = []

    def engine(make) -> Threads:
        made.append(Threads(make))
        return made[-1]

    monkeypatch.setattr(engines, "Serial", engine)
    return made


@pytest.mark.usefixtures("threads")
def test_runs_go_side_by_side_and_none_before_what_it_needs(grid, tmp_path) -> None:
    fake = SideBySide()
    assert make([*grid, "seeds=0,1"], fake) == 0
    for seed in ("0", "1"):
        order = [name for name in fake.names if name.endswith(f"seed{seed}")]
        assert order.index(f"baseline-labeled0.1-seed{seed}") < order.index(f"dfssd-labeled0.1-seed{seed}")
        assert frozenset({f"baseline-labeled0.1-seed{seed}", f"dfssd-labeled0.1-seed{seed}"}) not in fake.together
    assert fake.together, "two at once"
    assert make([*grid, "seeds=0,1", "project=alone", "out=alone", "jobs=1"], FakeTrain()) == 0
    assert rows_without_times(tmp_path / "small.csv") == rows_without_times(tmp_path / "alone" / "small.csv")


def rows_without_times(path: Path) -> list[dict]:
    changing = {"command", "seconds", "machine", "git"}
    return sorted(({k: v for k, v in row.items() if k not in changing} for row in rows_of(path)), key=str)


@pytest.mark.usefixtures("threads")
def test_cells_of_a_failed_baseline_are_left_out_and_others_go_on(grid, capsys) -> None:
    class OneFails(SideBySide):
        def fails(self, cell: str, seed: int) -> bool:
            return (cell, seed) == ("baseline", 1)

    fake = OneFails(0)
    assert make([*grid, "seeds=1,2"], fake) == 2
    error = capsys.readouterr().err
    assert "baseline, labeled 0.1, seed 1: exit code 2" in error
    assert "dfssd, labeled 0.1, seed 1: not run, since baseline did not finish" in error
    assert {call["seed"] for call in fake.calls if call["name"].startswith("dfssd")} == {2}


def test_an_interrupt_stops_what_is_being_made(grid, threads) -> None:
    class Stopped(FakeTrain):
        def __call__(self, words, log: Path) -> int:
            raise KeyboardInterrupt

    assert make(grid, Stopped()) == 130
    assert threads[-1].stopped


@pytest.mark.train
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ray", marks=pytest.mark.skipif(not RAY, reason="Ray is not installed: pip install 'dfssd[ray]'")),
        pytest.param("local", marks=pytest.mark.skipif(not JOBS, reason="submitit is not installed")),
    ],
)
def test_a_killed_run_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the worker is killed, then the training."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    log = tmp_path / "runs" / "n.log"
    with opened(name, Resources(), 2, tmp_path, dies_twice) as engine:
        assert engine.train(["project=runs", "name=n"], log) == 0
    assert log.read_text() == "project=runs name=n\n" + 2 * "project=runs name=n resume=runs/n\n"
    assert not log.with_suffix(".job").exists(), "nothing is waited for any more"


def test_a_run_that_is_killed_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = Threads(always_killed)
    assert engine.train(["project=p", "name=n"], tmp_path / "n.log") == -signal.SIGTERM
    assert len((tmp_path / "n.log").read_text()) == RETRIES + 1
    engine.stop()
    assert engine.train(["project=p", "name=n"], tmp_path / "n.log") == -signal.SIGTERM
    assert len((tmp_path / "n.log").read_text()) == RETRIES + 2, "not again when it has been stopped"


@pytest.mark.parametrize(
    ("code", "tries"), [(-9, RETRIES + 1), (143, RETRIES + 1), (129, RETRIES + 1), (130, 1), (2, 1), (0, 1)]
)
def test_exit_codes_of_signals_are_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    """A run catches SIGTERM and SIGHUP; Ctrl-C is the wish of a person."""
    monkeypatch.chdir(tmp_path)
    seen: list[Path] = []

    def ended(words: Sequence[str], log: Path) -> int:
        seen.append(log)
        return code

    assert Threads(ended).train(["project=p", "name=n"], tmp_path / "n.log") == code and len(seen) == tries


@pytest.mark.skipif(not JOBS, reason="submitit is not installed: pip install 'dfssd[slurm]'")
def test_machine_without_slurm_is_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(UserError, match=r"engine=slurm: .*; run it where sbatch is"),
        opened("slurm", Resources(), None, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("engine", "resources", "jobs", "message"),
    [
        ("serial", Resources(), 2, "add engine=ray, slurm, or local"),
        ("serial", Resources(gpus=1), None, "add engine=ray, slurm, or local"),
        ("local", Resources(gpus=1), None, "engine=local gpus=1: submitit would give all runs the same GPUs"),
        ("slurm", Resources(gpus=0.5), None, "engine=slurm gpus=0.5: a job takes whole GPUs"),
    ],
)
@pytest.mark.skipif(not JOBS, reason="submitit is not installed: pip install 'dfssd[slurm]'")
def test_what_an_engine_cannot_give_is_refused(tmp_path: Path, engine, resources, jobs, message: str) -> None:
    with pytest.raises(UserError, match=message), opened(engine, resources, jobs, tmp_path):
        pass


def test_runs_of_a_grid_take_one_device(grid, capsys) -> None:
    assert make([*grid, "device=0,1"], FakeTrain()) == 2
    assert "device=0,1: each run of a grid takes one device" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_package_that_is_missing_is_named(tmp_path: Path, monkeypatch, engine: str) -> None:
    monkeypatch.setitem(sys.modules, {"ray": "ray", "slurm": "submitit"}[engine], None)
    extra = rf"engine={engine}: .* is not installed: pip install 'dfssd\[{engine}\]'"
    with pytest.raises(UserError, match=extra), opened(engine, Resources(), None, tmp_path):
        pass


def test_lines_of_a_run(tmp_path: Path) -> None:
    words = [f"project={tmp_path}", "name=n"]
    assert going_on(words) == words
    (tmp_path / "n").mkdir()
    assert going_on(words) == [*words, "exist_ok=true"]
    (tmp_path / "n" / "run.yaml").touch()
    assert going_on(words) == [*words, f"resume={(tmp_path / 'n').as_posix()}"]


@pytest.mark.train
@pytest.mark.skipif(sys.platform != "linux", reason="processes are tied to their parents on Linux")
def test_training_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dfssd.benchmark.children import run_child; "
        f"run_child([sys.executable, '-c', 'import time; time.sleep(60)'], Path({str(tmp_path / 'a.log')!r}))"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        while not (noted := read_json(tmp_path / "a.json")):
            time.sleep(0.05)
        assert lives(noted)
        assert not lives({**noted, "host": "another"}), "nothing is known of processes elsewhere"
        training = psutil.Process(noted["pid"])
    finally:
        worker.kill()
        worker.wait()
    training.wait(10)


@pytest.mark.train
def test_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    assert run_child([sys.executable, "-c", "import sys; print('so'); sys.exit(3)"], tmp_path / "a.log") == 3
    assert (tmp_path / "a.log").read_text() == "so\n"
