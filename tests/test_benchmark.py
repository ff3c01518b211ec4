"""The grid of runs: a stand-in for ``train.py`` writes the record of a run."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from dfssd.benchmark import running
from dfssd.benchmark.grid import Grid
from dfssd.benchmark.rows import COLUMNS, Difference, Row, difference, mean_sd, recovered, shown_command, student_t
from dfssd.benchmark.running import main, run_train
from dfssd.benchmark.table import csv_rows, markdown, write_tables
from dfssd.config import parse_arguments
from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import paired_bootstrap
from dfssd.reporting.tables import csv_text
from dfssd.runs.configure import configure
from tests.evaluation.test_bootstrap import random_detections

ROOT = Path(__file__).resolve().parents[1]
HEAD = {"schema": 1, "task": "detect", "measure": "mAP50-95"}
MAPS = {"baseline": 0.30, "teacher": 0.36, "ultralytics": 0.31, "dfssd": 0.34, "oracle": 0.40}
SMALL = {
    "common": {"teacher": "yolov8s.yaml", "student": "yolov8n.yaml", "epochs": 2, "limit": 50, "plots": False},
    "labeled": [0.1],
    "seeds": [0],
    "cells": {"baseline": {"recipe": "baseline"}, "ultralytics": {"recipe": "ultralytics"}, "dfssd": None},
    "oracle": {"recipe": "baseline", "teacher": "none", "epochs": 1},
}


TRAINED = {"epochs": 2, "epochs_done": 2, "batches": 80, "optimizer_steps": 20, "batch": 16, "optimizer": "SGD"}
TRAINED |= {"lr0": 0.01, "best_epoch": 1}


class FakeTrain:
    """Writes what a run of ``train.py`` leaves behind. ``maps``: cell -> mAP50-95; the others of :data:`MAPS`."""

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.fail: set[str] = set()
        self.die: set[str] = set()
        self.seeds: dict[int, float] = {}
        self.maps = dict(MAPS)

    def __call__(self, words, log: Path) -> int:
        given = parse_arguments(list(words))
        self.calls.append(given)
        cell = given["name"].partition("-labeled")[0]
        folder = Path(given["project"]) / given["name"]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("[dfssd] run folder\nerror: no luck\n" if cell in self.fail else "fine\n")
        if cell in self.fail:
            return 2
        if "resume" not in given:
            folder.mkdir(parents=True, exist_ok="exist_ok" in given)
            config = configure(given)
            tree = {"given": given, "config": config.own, "terms": config.terms, "train": config.train}
            (folder / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(tree))))
        command = "python train.py " + shlex.join(words)
        run = {"command": command, "device": "cpu", "dfssd": "0.1", "ultralytics": "8", "torch": "2", "git": "abc"}
        run |= {"machine": "Linux x86_64", "python": "3", "recipe": "dfssd", "seed": given["seed"]}
        results: dict[str, Any] = {"run": run, "stages": [{"name": "prepare", "seconds": 0.5, "status": "done"}]}
        (folder / "results.json").write_text(
            json.dumps({"schema": 1, "task": "detect", "measure": "mAP50-95", **results})
        )
        if cell in self.die:
            raise KeyboardInterrupt
        roles = {"baseline": ["teacher", "baseline"], "oracle": ["baseline"]}.get(cell, ["student"])
        shift = self.seeds.get(given["seed"], 0.0)
        for role in roles:
            value = self.maps["oracle" if cell == "oracle" else "teacher" if role == "teacher" else cell] + shift
            unasked = {"precision": 0.5, "recall": 0.5}
            pit = {"ap50": value + 0.2, "ap50_95": value, "instances": 9, **unasked}
            test: dict[str, Any] = {
                "map50": value + 0.2,
                "map50_95": value,
                "confidence": 0.3,
                "images": 40,
                "instances": 9,
                **unasked,
            }
            test |= {"per_class": {"pit": pit}, "pr_curve": {"recall": [], "precision": []}}
            results.setdefault("test", {})[role] = test
            results.setdefault("training", {})[role] = {**TRAINED, "val_score": 0.5}
            results["stages"].append({"name": role, "seconds": 12.5, "status": "done"})
            random_detections(skill=10 * value).write(folder / "test" / role / "detections.npz")
        results["stages"].append({"name": "report", "seconds": 1.0, "status": "done"})
        (folder / "results.json").write_text(
            json.dumps({"schema": 1, "task": "detect", "measure": "mAP50-95", **results})
        )
        return 0

    @property
    def names(self) -> list[str]:
        return [call["name"] for call in self.calls]


@pytest.fixture
def fake() -> FakeTrain:
    return FakeTrain()


@pytest.fixture
def bench(tmp_path, monkeypatch, fake):
    """Call the command in an empty folder on a grid; keyword arguments replace parts of the YAML."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dfssd.benchmark.rows.paired_bootstrap", partial(paired_bootstrap, rounds=20))
    (tmp_path / "private place").mkdir()
    data = tmp_path / "private place" / "DATA.zip"
    data.touch()

    def call(*words: str, **changes) -> int:
        (tmp_path / "grids").mkdir(exist_ok=True)
        (tmp_path / "grids" / "small.yaml").write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
        argv = ["grids/small.yaml", f"data={data}", *words]
        return main([word for word in argv if word != "data="], train=fake, check=lambda given: None)

    return call


def rows_of(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def row(recipe: str, value: float, seed: int = 0, labeled: float = 0.1, **values) -> Row:
    known = {"map50_95": value, "map50": value + 0.2, "steps": 80, "optimizer_steps": 20, **values}
    return Row(recipe, labeled, seed, {key: known.get(key) for key in COLUMNS[3:]})


def seeds(recipe: str, *values: float) -> dict[int, Row]:
    return {seed: row(recipe, value, seed) for seed, value in enumerate(values)}


# the grid


def read(tmp_path: Path, given=None, **changes) -> Grid:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return Grid.read(path, given)


def test_order_is_one_complete_comparison_after_the_other(tmp_path):
    grid = read(tmp_path, labeled=[0.05, 0.1], seeds=[0, 1])
    named = [(run.cell, run.labeled, run.seed) for run in grid.runs]
    block = ["baseline", "ultralytics", "dfssd"]
    expected = [
        *((cell, labeled, 0) for labeled in (0.05, 0.1) for cell in block),
        ("oracle", 1.0, 0),
        *((cell, labeled, 1) for labeled in (0.05, 0.1) for cell in block),
        ("oracle", 1.0, 1),
    ]
    assert named == expected


def test_each_share_may_have_its_own_seeds(tmp_path):
    tree = {key: value for key, value in SMALL.items() if key != "seeds"}
    path = tmp_path / "g.yaml"
    path.write_text(yaml.safe_dump({**tree, "labeled": {0.1: [0, 1], 50: [1]}}))
    runs = Grid.read(path).runs
    assert [(r.labeled, r.seed) for r in runs if r.cell == "dfssd"] == [(0.1, 0), (0.1, 1), (50, 1)]
    assert [r.seed for r in runs if r.cell == "oracle"] == [0, 1]


def test_cells_take_over_split_teacher_and_baseline(tmp_path):
    base, _, ours, oracle = read(tmp_path, {"data": "demo"}).runs
    first, other, last = (parse_arguments(run.arguments(Path("runs/small"))) for run in (base, ours, oracle))
    assert first["labeled"] == 0.1 and first["limit"] == 50 and first["teacher"] == "yolov8s.yaml"
    assert first["plots"] is False and first["recipe"] == "baseline" and "split" not in first
    folder = "runs/small/baseline-labeled0.1-seed0"
    assert other["teacher"] == f"{folder}/weights/teacher.pt"
    assert other["baseline"] == folder and other["split"] == f"{folder}/splits"
    assert not {"labeled", "limit", "recipe"} & set(other)
    assert other["epochs"] == 2 and other["student"] == "yolov8n.yaml" and other["data"] == "demo"
    assert last["labeled"] == 1.0 and last["teacher"] is None and last["epochs"] == 1 and "baseline" not in last


def test_given_split_takes_the_place_of_the_share(tmp_path):
    base, _, ours = read(tmp_path, {"data": "demo"}, split="lists", oracle=None, labeled=[1.0]).runs
    first, other = (parse_arguments(run.arguments(Path("runs/small"))) for run in (base, ours))
    assert first["split"] == "lists" and "labeled" not in first
    assert other["split"] == "runs/small/baseline-labeled1.0-seed0/splits"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_grids_of_the_project_can_be_run(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = Grid.read(path, {"data": "demo"}).runs
    assert len(runs) > 5 and path.read_text(encoding="utf-8").startswith("#")
    for run in runs:
        config = configure(parse_arguments(run.arguments(Path("runs") / path.stem)))
        assert config["student_training"] != "distilled" or config.terms or run.cell == "pseudo-only", run
        if run.split:
            assert (ROOT / run.split / "train_labeled.txt").is_file()


def test_command_line_replaces_common_values_but_not_those_of_a_cell(tmp_path):
    runs = read(tmp_path, {"epochs": 7}).runs
    assert [run.values["epochs"] for run in runs] == [7, 7, 7, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"comon": {}}, "unknown key 'comon'; did you mean 'common'"),
        ({"cells": {"dfssd": {}}}, "cells must contain 'baseline'"),
        ({"cells": None}, "cells must hold"),
        ({"cells": {"baseline": "x"}}, "cells.baseline must hold"),
        ({"cells": {"baseline": {}, "oracle": {}}}, "cannot be called 'oracle'"),
        ({"cells": {"baseline": {}, "dfssd": {"seed": 3}}}, "seed cannot be set in cells.dfssd"),
        ({"cells": {"baseline": {}, "dfssd": {"teacher": "x.pt"}}}, "teacher cannot be set in cells.dfssd"),
        ({"common": {"name": "x"}}, "name cannot be set in common"),
        ({"oracle": {"split": "x"}}, "split cannot be set in oracle"),
        ({"labeled": []}, "give labeled"),
        ({"labeled": 0.1}, "give labeled"),
        ({"labeled": [0]}, "give labeled"),
        ({"labeled": {0.1: [0]}, "seeds": [0]}, "give labeled"),
        ({"seeds": ["a"]}, "give labeled"),
        ({"split": "lists"}, "split is one folder of lists"),
        ({"split": 3, "oracle": None}, "split is one folder of lists"),
        ({"split": "lists", "oracle": None, "labeled": [0.1, 1.0]}, "split is one folder of lists"),
    ],
)
def test_mistakes_in_the_grid_are_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_the_same_comes_from_the_command_line(tmp_path):
    with pytest.raises(UserError, match="labeled cannot be set in common or on the command line"):
        read(tmp_path, {"labeled": 0.2})


def test_only_brings_the_baseline_along(tmp_path):
    grid = read(tmp_path)
    assert [run.cell for run in grid.select("dfssd")] == ["baseline", "dfssd"]
    assert [run.cell for run in grid.select("oracle")] == ["oracle"]
    with pytest.raises(UserError, match="only=dfsd: no such cell; did you mean 'dfssd'"):
        grid.select("dfsd")


# running


def test_a_whole_grid(bench, fake, tmp_path, capsys):
    assert bench() == 0
    assert fake.names == [f"{c}-labeled0.1-seed0" for c in ("baseline", "ultralytics", "dfssd")] + [
        "oracle-labeled1.0-seed0"
    ]
    rows = rows_of(tmp_path / "grids" / "small.csv")
    assert [(r["recipe"], r["labeled"], r["seed"], float(r["map50_95"])) for r in rows] == [
        ("teacher", "0.1", "0", 0.36),
        ("baseline", "0.1", "0", 0.30),
        ("ultralytics", "0.1", "0", 0.31),
        ("dfssd", "0.1", "0", 0.34),
        ("oracle", "1.0", "0", 0.40),
    ]
    assert {"steps": "80", "optimizer_steps": "20", "seconds": "12.5", "device": "cpu"}.items() <= rows[3].items()
    assert rows[3]["ap50_95 pit"] == "0.34" and rows[3]["git"] == "abc"
    text = (tmp_path / "grids" / "small.md").read_text()
    assert "| dfssd | 1 | 0.340 |" in text and "40%" in text and "Not run" not in text
    assert "python scripts/benchmark.py grids/small.yaml data=DATA.zip" in text
    assert (tmp_path / "grids" / "small.png").stat().st_size > 1000
    assert (tmp_path / "runs" / "small" / "dfssd-labeled0.1-seed0.log").exists()
    assert "3 of 4: dfssd, labeled 0.1, seed 0: done in" in capsys.readouterr().out


def test_no_path_of_the_machine_in_any_output(bench, tmp_path):
    assert bench(f"project={tmp_path}/private runs") == 0
    for name in ("small.csv", "small.md"):
        text = (tmp_path / "grids" / name).read_text()
        assert str(tmp_path) not in text and "private place" not in text, name
    command = rows_of(tmp_path / "grids" / "small.csv")[3]["command"]
    assert "data=DATA.zip" in command and command.startswith("python train.py")
    assert "'split=private runs/small/baseline-labeled0.1-seed0/splits'" in command


def test_second_time_nothing_is_run_again(bench, fake):
    bench()
    fake.calls.clear()
    assert bench() == 0 and fake.calls == []


def test_killed_grid_keeps_what_it_has_and_resumes_the_rest(bench, fake, tmp_path):
    fake.die = {"dfssd"}
    assert bench() == 130
    assert [r["recipe"] for r in rows_of(tmp_path / "grids" / "small.csv")] == ["teacher", "baseline", "ultralytics"]
    assert "Not run: dfssd, oracle." in (tmp_path / "grids" / "small.md").read_text()
    fake.die, fake.calls = set(), []
    assert bench() == 0
    assert [c.get("resume") for c in fake.calls] == ["runs/small/dfssd-labeled0.1-seed0", None]
    assert len(rows_of(tmp_path / "grids" / "small.csv")) == 5


def test_folder_without_record_is_started_anew(bench, fake, tmp_path):
    (tmp_path / "runs" / "small" / "dfssd-labeled0.1-seed0").mkdir(parents=True)
    assert bench() == 0
    assert fake.calls[2]["exist_ok"] is True and "resume" not in fake.calls[2]


def test_failed_cell_is_reported_and_the_others_continue(bench, fake, tmp_path, capsys):
    fake.fail = {"ultralytics"}
    assert bench() == 2
    assert [r["recipe"] for r in rows_of(tmp_path / "grids" / "small.csv")] == [
        "teacher", "baseline", "dfssd", "oracle"
    ]  # fmt: skip
    output = capsys.readouterr()
    assert "FAILED after 0 s with exit code 2: error: no luck" in output.out
    assert output.err.splitlines() == ["error: ultralytics, labeled 0.1, seed 0: exit code 2: error: no luck"]
    assert "Not run: ultralytics." in (tmp_path / "grids" / "small.md").read_text()


def test_without_baseline_only_the_oracle_is_run(bench, fake, tmp_path, capsys):
    fake.fail = {"baseline"}
    assert bench() == 2
    assert [name.partition("-")[0] for name in fake.names] == ["baseline", "oracle"]
    assert [r["recipe"] for r in rows_of(tmp_path / "grids" / "small.csv")] == ["oracle"]
    assert capsys.readouterr().err.count("since its baseline did not finish") == 2


def test_all_cells_failing_leaves_an_empty_table(bench, fake, tmp_path):
    fake.fail = set(MAPS)
    assert bench() == 2
    assert rows_of(tmp_path / "grids" / "small.csv") == []
    assert "No run has finished yet." in (tmp_path / "grids" / "small.md").read_text()


def test_table_only_rebuilds_and_runs_nothing(bench, fake, tmp_path):
    bench("epochs=9", "only=dfssd")
    before = (tmp_path / "grids" / "small.md").read_text()
    (tmp_path / "grids" / "small.csv").unlink()
    fake.calls.clear()
    assert main(["--table-only", "grids/small.yaml", "out=elsewhere"], train=fake) == 0  # remembers data and epochs
    assert fake.calls == [] and (tmp_path / "elsewhere" / "small.md").read_text() == before
    assert [r["recipe"] for r in rows_of(tmp_path / "elsewhere" / "small.csv")] == ["teacher", "baseline", "dfssd"]


def test_changed_grid_does_not_pass_old_runs_for_new_ones(bench, fake, capsys):
    bench()
    assert bench("epochs=5") == 2
    assert "was run with epochs=2, the grid now sets epochs=5" in capsys.readouterr().err
    assert bench("device=cpu") == 0  # does not change what is computed
    assert bench("nbs=32", "only=dfssd") == 2  # ... and the other way round: what was given before and is not now
    assert "was run with nbs=None, the grid now sets nbs=32" in capsys.readouterr().err


def test_changed_default_does_not_pass_old_runs_for_new_ones(bench, fake, tmp_path, capsys):
    """The distilled run is the one refused, the last of three: the others do not read that setting."""
    bench()
    for record in (tmp_path / "runs" / "small").glob("*/run.yaml"):
        tree = yaml.safe_load(record.read_text())
        tree["config"]["pseudo.tau0"] = 0.15
        record.write_text(yaml.safe_dump(tree))
    assert bench() == 2
    assert "dfssd-labeled0.1-seed0 was run with pseudo.tau0=0.15, the grid now sets" in capsys.readouterr().err
    record = tmp_path / "runs" / "small" / "baseline-labeled0.1-seed0" / "run.yaml"
    tree = yaml.safe_load(record.read_text())
    tree["train"]["nbs"] = 32
    record.write_text(yaml.safe_dump(tree))
    assert bench("only=ultralytics") == 2
    assert "was run with nbs=32, the grid now sets nbs=None" in capsys.readouterr().err


def test_only_the_base_run_refines_the_teacher(tmp_path):
    cells = {"baseline": {"recipe": "baseline"}, "dfssd": None, "again": {"teacher_rounds": 2}}
    grid = read(tmp_path, given={"teacher_rounds": 1}, cells=cells, oracle=None)
    assert {run.cell: run.values.get("teacher_rounds") for run in grid.runs} == {
        "baseline": 1,
        "dfssd": None,
        "again": 2,
    }


def test_a_run_in_work_is_not_started_twice(bench, fake, tmp_path, capsys):
    folder = tmp_path / "runs" / "small"
    folder.mkdir(parents=True)
    me = psutil.Process()
    state = folder / "baseline-labeled0.1-seed0.json"
    state.write_text(json.dumps({"pid": me.pid, "created": me.create_time()}))
    assert bench() == 2 and f"still running in process {me.pid}" in capsys.readouterr().err
    state.write_text(json.dumps({"pid": me.pid, "created": 0.0}))  # the number is another's now
    assert bench() == 0


def test_arguments_are_checked_before_the_first_run(bench, fake, tmp_path, capsys):
    assert bench("table=yes") == 2
    assert main(["grids/small.yaml"], train=fake, check=lambda given: None) == 2
    assert main(["grids/small.yaml", "data=gone.zip"], train=fake, check=lambda given: None) == 2
    assert main(["data=x"], train=fake) == 2

    def refuse(given):
        if given["name"].startswith("dfssd"):
            raise UserError("unknown key 'epoch'")

    assert main(["grids/small.yaml", "data=demo"], train=fake, check=refuse) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error"] * 5
    assert "data is missing" in lines[1] and "data=gone.zip does not exist" in lines[2]
    assert "give the grid first" in lines[3] and lines[4] == "error: cell dfssd: unknown key 'epoch'"
    assert fake.calls == []


def test_real_check_names_a_misspelled_key(bench, fake, capsys, tmp_path):
    (tmp_path / "grids").mkdir()
    tree = {"labeled": [0.1], "cells": {"baseline": {"epoch": 3}}}
    (tmp_path / "grids" / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["grids/x.yaml", "data=demo"], train=fake) == 2
    assert "cell baseline: unknown key 'epoch'; did you mean 'epochs'" in capsys.readouterr().err


@pytest.mark.train
def test_help_and_script(capsys):
    assert main([]) == 0 and "usage: python scripts/benchmark.py" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "none.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: cannot read none.yaml")


@pytest.mark.train
def test_process_gets_the_arguments_and_its_output_is_kept(tmp_path, monkeypatch):
    script = "import sys; print(sys.argv[1:]); print('oh', file=sys.stderr); sys.exit(3)"
    (tmp_path / "train.py").write_text(script)
    monkeypatch.setattr(running, "COMMAND", [sys.executable, str(tmp_path / "train.py")])
    log = tmp_path / "a.log"
    assert run_train(["data=x y.zip", "epochs=1"], log) == 3
    assert run_train(["again=1"], log) == 3
    text = log.read_text()
    assert "['data=x y.zip', 'epochs=1']" in text and "again" in text and "oh" in text
    assert set(json.loads((tmp_path / "a.json").read_text())) == {"pid", "created"}


@pytest.mark.train
def test_run_is_the_command_line_wherever_the_grid_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    log = tmp_path / "a.log"
    assert run_train(["epoch=3"], log) == 2
    assert log.read_text() == "error: unknown key 'epoch'; did you mean 'epochs'?\n"


@pytest.mark.train
def test_process_ends_with_the_grid(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(running, "COMMAND", [sys.executable, str(tmp_path / "train.py")])
    started: list[psutil.Process] = []

    def interrupt(path, state) -> None:
        started.append(psutil.Process(state["pid"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_train([], tmp_path / "a.log")
    assert not started[0].is_running()


# the numbers


def test_mean_and_standard_deviation():
    assert mean_sd([0.1, 0.2, 0.3]) == pytest.approx((0.2, 0.1))
    assert mean_sd([0.4]) == (0.4, None)


def test_t_interval_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3), t(2, 97.5 %) = 4.3027."""
    assert student_t([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)
    low, high = student_t([0.0, 2.0])  # t(1, 97.5 %) = 12.706, standard error 1
    assert (low, high) == pytest.approx((1 - 12.7062, 1 + 12.7062), abs=1e-3)


def test_difference_is_paired_by_seed():
    ours, base = seeds("dfssd", 0.33, 0.44, 0.55), seeds("baseline", 0.30, 0.40, 0.50)  # gains .03 .04 .05
    gap = difference(ours, base)
    assert gap is not None and gap.kind == "seeds"
    half = 4.30265 * 0.01 / 3**0.5
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.04, 0.04 - half, 0.04 + half), abs=1e-6)
    del base[1], base[2]
    assert difference(ours, base) == Difference(pytest.approx(0.03))  # one common seed, no detections
    assert difference(ours, {}) is None


def test_one_seed_takes_the_test_images(tmp_path):
    worse, better = random_detections(skill=0.5), random_detections(skill=0.5)
    better = replace(better, tp=better.tp | (better.conf > 0.9)[:, None])
    better.write(tmp_path / "a.npz")
    worse.write(tmp_path / "b.npz")
    replace(worse, images=worse.images[::-1]).write(tmp_path / "c.npz")
    a, b = (replace(row("x", value), detections=tmp_path / f) for value, f in ((0.34, "a.npz"), (0.30, "b.npz")))
    gap = difference({0: a}, {0: b})
    assert gap is not None and gap.kind == "images" and 0 < gap.low < gap.high
    assert str(gap).startswith("+0.040 [+0.") and str(gap).endswith("]*")
    assert difference({0: a}, {0: replace(b, detections=tmp_path / "c.npz")}) == Difference(pytest.approx(0.04))


def test_recovered_share_by_hand():
    base, ours, oracle = seeds("baseline", 0.3, 0.2), seeds("dfssd", 0.36, 0.24), seeds("oracle", 0.4, 0.3)
    assert recovered(ours, base, oracle) == pytest.approx(0.5)  # (.06 + .04) / (.1 + .1)
    assert recovered(ours, base, {0: oracle[0]}) == pytest.approx(0.6)
    assert recovered(ours, base, {}) is None
    assert recovered(ours, base, seeds("oracle", 0.3, 0.1)) is None  # an oracle that is no better measures nothing


def test_table_of_several_seeds_and_shares(tmp_path):
    rows = [row("baseline", v, s, x) for x in (0.1, 50) for s, v in ((0, 0.30), (1, 0.32))]
    rows += [row("dfssd", v, s, x, steps=80 + s) for x in (0.1, 50) for s, v in ((0, 0.34), (1, 0.38))]
    rows += [row("oracle", 0.41, s, 1.0) for s in (0, 1)]
    write_tables(rows, "g", tmp_path, cells=["baseline", "dfssd", "other", "oracle"], command="python x")
    text = (tmp_path / "g.md").read_text()
    assert "## 10 % of the labels" in text and "## 50 labeled images" in text
    line = next(line for line in text.splitlines() if line.startswith("| dfssd"))
    # gains .04 and .06: mean .05, standard error .01, t = 12.706
    assert line == ("| dfssd | 2 | 0.360 ± 0.028 | 0.560 ± 0.028 | 80 to 81 / 20 | +0.050 [-0.077, +0.177] | - | 50% |")
    assert "Student's t" in text and "bootstrap" not in text and "Not run: other." in text
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["g.csv", "g.md", "g.png"]
    assert len(rows_of(tmp_path / "g.csv")) == 10


def test_one_seed_reports_what_its_interval_leaves_out(bench, tmp_path):
    bench()
    text = (tmp_path / "grids" / "small.md").read_text()
    assert "(40 test images)" in text and "not the randomness of the training" in text and "]* |" in text


def test_guard_is_reported():
    lines = markdown([row("baseline", 0.3), row("dfssd", 0.3, chosen="baseline")], "g", cells=["dfssd"], command="x")
    assert any("In dfssd the guard kept the baseline's weights" in line for line in lines)


def test_unknown_values_are_empty_in_the_csv():
    header, line = csv_text(*csv_rows([row("dfssd", 0.3, steps=None)]), show=str).splitlines()
    assert header.split(",") == list(COLUMNS)
    assert dict(zip(COLUMNS, line.split(",")))["steps"] == ""


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("data=/home/me/CR7-DET.zip", "data=CR7-DET.zip"),
        ("data=C:\\me\\set.zip", "data=set.zip"),
        ("data=../sets/neu/", "data=neu"),
        ("data=demo", "data=demo"),
        ("project=bench/x", "project=bench/x"),
        ("project=/big/disk/runs/x", "project=runs/x"),
        ("teacher=/home/me/t.pt", "teacher=t.pt"),
        ("student=~/nets/n.yaml", "student=n.yaml"),
        ("student=D:\\nets\\n.yaml", "student=n.yaml"),
        ("epochs=3", "epochs=3"),
        ("/home/me/grid.yaml", "grid.yaml"),
    ],
)
def test_shown_paths(word, shown):
    assert shown_command([word], Path("/big/disk")).strip("'") == shown


def test_seconds_of_a_resumed_run_are_those_of_all_sessions(tmp_path, fake):
    words = ["project=" + str(tmp_path), "name=dfssd-labeled0.1-seed0", "seed=0"]
    fake(words, tmp_path / "log")
    folder = tmp_path / "dfssd-labeled0.1-seed0"
    record = json.loads((folder / "results.json").read_text())
    session = ("dfssd", "ultralytics", "torch", "python", "machine", "device", "git")
    record["run"]["resumed"] = [{key: record["run"][key] for key in session}]
    (folder / "results.json").write_text(json.dumps(record))
    (folder / "train" / "student").mkdir(parents=True)
    (folder / "train" / "student" / "results.csv").write_text("epoch,time\n1,10\n2,20\n3,9\n4,19\n")
    rows = running.finished_rows(
        SimpleNamespace(runs=[SimpleNamespace(name=folder.name, cell="dfssd", labeled=0.1, seed=0, base=None,
                                              arguments=lambda runs: words)]), tmp_path
    )  # fmt: skip
    assert rows[0].values["seconds"] == pytest.approx(39.0)
    assert np.isclose(rows[0].map50_95, 0.34)
