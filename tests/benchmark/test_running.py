"""The runs of a grid, one after the other, with a stand-in for ``train.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from dfssd.benchmark import engines
from dfssd.benchmark.engines import run_train
from dfssd.cli import main as cli
from dfssd.errors import UserError
from tests.benchmark.fake_runs import MAPS, main, rows_of

ROOT = Path(__file__).resolve().parents[2]
Cells = dict[str, dict[str, Any]]


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
    assert "| dfssd | 1 | 0.500 | +0.000 | 0.340 |" in text and "40%" in text and "Not run" not in text
    assert "dfssd benchmark grids/small.yaml data=DATA.zip" in text
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
    assert capsys.readouterr().err.count("since baseline did not finish") == 2


def test_all_cells_failing_leaves_an_empty_table(bench, fake, tmp_path):
    fake.fail = set(MAPS)
    assert bench() == 2
    assert rows_of(tmp_path / "grids" / "small.csv") == []
    assert "No run has finished yet." in (tmp_path / "grids" / "small.md").read_text()


def test_table_only_rebuilds_and_runs_nothing(bench, fake, tmp_path, capsys):
    bench("epochs=9", "only=dfssd")
    before = (tmp_path / "grids" / "small.md").read_text()
    (tmp_path / "grids" / "small.csv").unlink()
    fake.calls.clear()
    assert main(["table=only", "grids/small.yaml", "out=elsewhere"], train=fake) == 0  # remembers data and epochs
    assert fake.calls == [] and (tmp_path / "elsewhere" / "small.md").read_text() == before
    files = [f"elsewhere/small{end}" for end in (".csv", "-means.csv", ".md", ".png")]
    assert capsys.readouterr().out.splitlines()[-1] == f"written: {', '.join(files)}"
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == sorted(Path(file).name for file in files)
    assert [r["recipe"] for r in rows_of(tmp_path / "elsewhere" / "small.csv")] == ["teacher", "baseline", "dfssd"]


def test_rows_of_another_machine_stand_beside_those_made_here(bench, fake, tmp_path, capsys):
    """Two machines with a seed each make the table of one with both; a run that is here wins over a row."""
    assert bench("seeds=0,1", "project=one", "out=one") == 0
    assert bench("seeds=0", "project=there", "out=there") == 0
    assert bench("seeds=1", "project=here", "rows=there/small.csv", "out=here") == 0
    for end in (".csv", "-means.csv"):
        one, here = (rows_of(tmp_path / folder / f"small{end}") for folder in ("one", "here"))
        assert [{**row, "command": ""} for row in here] == [{**row, "command": ""} for row in one]
    text = (tmp_path / "there" / "small.csv").read_text()
    (tmp_path / "there" / "small.csv").write_text(text.replace("dfssd,0.1,0,", "dfssd,0.1,1,"))
    assert bench("table=only", "project=here", "rows=there/small.csv", "out=again") == 0
    scores = {(row["recipe"], row["seed"]): row["map50"] for row in rows_of(tmp_path / "here" / "small.csv")}
    again = {(row["recipe"], row["seed"]): row["map50"] for row in rows_of(tmp_path / "again" / "small.csv")}
    assert again == {key: score for key, score in scores.items() if key != ("dfssd", "0")}
    capsys.readouterr()
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    (tmp_path / "other.csv").write_text(text.replace("dfssd,0.1", "mine,0.1"))
    for file, problem in {"odd": "is not the .csv of a grid", "other": "has mine, which is no cell of small",
                          "none": "cannot be read"}.items():  # fmt: skip
        assert bench("table=only", "project=here", f"rows={file}.csv") == 2
        error = capsys.readouterr().err
        assert f"rows={file}.csv: {problem}" in error and error.count("\n") == 1


def test_table_only_without_a_finished_run_keeps_the_tables(bench, fake, tmp_path, capsys):
    bench("only=dfssd")
    before = (tmp_path / "grids" / "small.csv").read_bytes()
    capsys.readouterr()
    assert bench("table=only", "project=elsewhere") == 2
    assert capsys.readouterr().err == (
        "error: table=only: no finished run of small in elsewhere/small, and nothing was written: give the project= "
        "of its runs, or leave table=only out\n"
    )
    assert (tmp_path / "grids" / "small.csv").read_bytes() == before and not (tmp_path / "elsewhere").exists()


def test_data_are_found_as_a_training_finds_them(bench, fake, capsys):
    for data in ("coco8.yaml", "NEU-DET", "demo"):
        fake.calls.clear()
        assert bench(f"data={data}", "only=baseline", f"project={data}") == 0
        assert {call["data"] for call in fake.calls} == {data}
    capsys.readouterr()
    assert bench("data=VOC.yaml", "project=other") == 2
    assert "data=VOC.yaml is prepared by a script inside Ultralytics" in capsys.readouterr().err


def test_refused_key_is_explained_as_by_a_training(bench, fake, capsys):
    assert main(["demo", "data=demo", "half=true"], train=fake) == 2
    assert capsys.readouterr().err.startswith("error: cell baseline: half is not available here: it belongs to exports")


def test_cell_taught_by_its_own_average_gets_no_teacher_file(bench, fake):
    cells: Cells = {"baseline": {"recipe": "baseline"}, "own": {"teacher_kind": "ema", "pseudo": "online"}}
    fake.maps["own"] = 0.33
    assert bench("split_ratio=[0.6,0.2,0.2]", cells=cells, oracle=None) == 0
    assert [("teacher" in call, "split_ratio" in call) for call in fake.calls] == [(True, True), (False, False)]


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


def test_run_of_an_earlier_version_may_hold_keys_without_effect(bench, fake, tmp_path):
    """Its grid gave all keys to all cells: a network of all labels trains no teacher, however long."""
    bench()
    record = tmp_path / "runs" / "small" / "oracle-labeled1.0-seed0" / "run.yaml"
    tree = yaml.safe_load(record.read_text())
    tree["config"]["teacher_min_batches"] = 7
    record.write_text(yaml.safe_dump(tree))
    before = len(fake.calls)
    assert bench() == 0 and len(fake.calls) == before


def test_run_from_before_there_was_a_key_had_its_default(bench, fake, tmp_path, capsys):
    bench()
    record = tmp_path / "runs" / "small" / "dfssd-labeled0.1-seed0" / "run.yaml"
    tree = yaml.safe_load(record.read_text())
    del tree["config"]["unsup_weight"]
    record.write_text(yaml.safe_dump(tree))
    assert bench() == 0
    assert bench(cells={"baseline": {"recipe": "baseline"}, "dfssd": {"unsup_weight": 2}}) == 2
    assert "was run with unsup_weight=1.0, the grid now sets unsup_weight=2" in capsys.readouterr().err


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
    assert "grid is missing" in lines[3] and lines[4] == "error: cell dfssd: unknown key 'epoch'"
    assert fake.calls == []


def test_real_check_names_a_misspelled_key(bench, fake, capsys, tmp_path):
    (tmp_path / "grids").mkdir()
    tree = {"labeled": [0.1], "cells": {"baseline": {"epoch": 3}}}
    (tmp_path / "grids" / "x.yaml").write_text(yaml.safe_dump(tree))
    assert main(["grids/x.yaml", "data=demo"], train=fake) == 2
    assert "cell baseline: unknown key 'epoch'; did you mean 'epochs'" in capsys.readouterr().err


def test_grid_of_dfssd_is_found_by_its_name(fake, tmp_path, monkeypatch, capsys):
    """Its tables lie with the runs, wherever the package is; the split that it names is found beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    words = ["neu-det", "data=photos", "only=baseline", "project=here", "device=cpu"]
    assert main(words, train=fake, check=lambda given: None) == 0
    assert {Path(call["split"]) for call in fake.calls} == {ROOT / "benchmarks" / "splits" / "neu-det"}
    text = (tmp_path / "here" / "neu-det" / "neu-det.md").read_text()
    assert "dfssd benchmark neu-det data=photos device=cpu" in text and str(ROOT) not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "photos"]
    monkeypatch.chdir(ROOT.parent)
    relative = f"{ROOT.name}/benchmarks/neu-det.yaml"
    again = [relative, *words[1:3], f"project={tmp_path / 'here'}", "table=only", f"out={tmp_path / 'out'}"]
    assert main(again, train=fake) == 0 and (tmp_path / "out" / "neu-det.csv").is_file(), "the same runs"
    assert main(["neu-dt", "data=photos"], train=fake) == 2
    assert "grid=neu-dt: no YAML file, and no grid of that name; did you mean 'neu-det'" in capsys.readouterr().err


def test_other_keys_are_those_of_the_runs(bench, fake):
    assert bench("epochs=3", "only=dfssd", "seeds=4") == 0
    assert {(call["epochs"], call["seed"]) for call in fake.calls} == {(3, 4)}


@pytest.mark.train
def test_help_and_script(capsys):
    assert cli(["benchmark", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: dfssd benchmark GRID key=value") and "demo, neu-det" in " ".join(shown.split())
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "none.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: cannot read none.yaml")


@pytest.mark.train
def test_process_gets_the_arguments_and_its_output_is_kept(tmp_path, monkeypatch):
    script = "import sys; print(sys.argv[1:]); print('oh', file=sys.stderr); sys.exit(3)"
    (tmp_path / "train.py").write_text(script)
    monkeypatch.setattr(engines, "COMMAND", [sys.executable, str(tmp_path / "train.py")])
    log = tmp_path / "a.log"
    assert run_train(["data=x y.zip", "epochs=1"], log) == 3
    assert run_train(["again=1"], log) == 3
    text = log.read_text()
    assert "['data=x y.zip', 'epochs=1']" in text and "again" in text and "oh" in text
    assert set(json.loads((tmp_path / "a.json").read_text())) == {"host", "pid", "created"}


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
    monkeypatch.setattr(engines, "COMMAND", [sys.executable, str(tmp_path / "train.py")])
    started: list[psutil.Process] = []

    def interrupt(path, state) -> None:
        started.append(psutil.Process(state["pid"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("dfssd.benchmark.children.write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_train([], tmp_path / "a.log")
    assert not started[0].is_running()


def test_cell_that_cannot_be_compared_with_the_baseline_is_refused_before_the_first_run(bench, fake, capsys):
    cells: Cells = {"baseline": {"recipe": "baseline"}, "big": {"student": "yolov8s.yaml"}}
    assert bench(cells=cells) == 2 and fake.calls == []
    error = capsys.readouterr().err
    assert "cell big cannot be compared with the baseline of cell baseline: it differs in student; add" in error
    cells["big"]["baseline"] = False
    fake.maps["big"] = 0.37
    assert bench(cells=cells) == 0 and len(fake.calls) == 3


def test_grid_without_a_teacher_is_refused_before_the_first_run(bench, fake, capsys):
    common = {"student": "yolov8n.yaml", "epochs": 2}
    assert bench(common=common) == 2 and fake.calls == []
    assert "cell baseline trains no teacher for cell ultralytics: add teacher: to common:" in capsys.readouterr().err


def test_teachers_run_first_and_a_failed_one_stops_its_pupils(bench, fake, tmp_path, capsys):
    cells: Cells = {"baseline": {"recipe": "baseline"}, "pupil": {"teacher": "first"}, "first": {}, "free": {}}
    fake.maps |= {"first": 0.37, "pupil": 0.39, "free": 0.33}
    fake.fail = {"first"}
    assert bench(cells=cells, oracle=None) == 2
    assert [name.partition("-")[0] for name in fake.names] == ["baseline", "first", "free"]
    assert "pupil, labeled 0.1, seed 0: not run, since first did not finish" in capsys.readouterr().err
    fake.fail, fake.calls = set(), []
    assert bench(cells=cells, oracle=None) == 0
    assert [name.partition("-")[0] for name in fake.names] == ["first", "pupil"]
    assert [r["recipe"] for r in rows_of(tmp_path / "grids" / "small.csv")] == [
        "teacher", "baseline", "pupil", "first", "free"
    ]  # fmt: skip


def test_another_teacher_does_not_pass_old_runs_for_new_ones(bench, fake, tmp_path, capsys):
    """The runs may lie elsewhere, but who taught whom must be the same."""
    fake.maps |= {"first": 0.37, "pupil": 0.39}
    cells: Cells = {"baseline": {"recipe": "baseline"}, "first": {}, "pupil": {"teacher": "first"}}
    assert bench(cells=cells, oracle=None) == 0
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert bench("project=moved", cells=cells, oracle=None) == 0
    cells["pupil"] = {}
    assert bench("project=moved", cells=cells, oracle=None) == 2
    assert "pupil-labeled0.1-seed0 was run with teacher=" in capsys.readouterr().err


def test_cell_without_student_is_shown_by_the_baseline_that_it_trained(bench, fake, tmp_path):
    fake.maps["control"] = 0.35
    fake.alone = {"control"}
    control = {"recipe": "baseline", "student": "yolov8s.yaml", "baseline": True}
    cells: Cells = {"baseline": {"recipe": "baseline"}, "control": control}
    assert bench(cells=cells) == 0
    [found] = [r for r in rows_of(tmp_path / "grids" / "small.csv") if r["recipe"] == "control"]
    assert float(found["map50_95"]) == 0.35 and found["steps"] == "80"


def test_one_seed_reports_what_its_interval_leaves_out(bench, tmp_path):
    bench()
    text = (tmp_path / "grids" / "small.md").read_text()
    assert "(40 test images)" in text and "not the randomness of the training" in text and "]* |" in text
