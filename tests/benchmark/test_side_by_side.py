"""Parts of one grid, made by several processes or one after the other: one table of all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dfssd.config import parse_arguments
from dfssd.files import locked
from tests.benchmark.fake_runs import FakeTrain, main, rows_of

ROOT = Path(__file__).resolve().parents[2]


def test_seeds_in_parts_fill_one_table(bench, fake, tmp_path):
    fake.seeds = {1: 0.01, 2: 0.02}
    assert bench("seeds=1") == 0
    assert bench("seeds=0,2", "only=dfssd") == 0
    assert {call["seed"] for call in fake.calls} == {0, 1, 2}
    rows = rows_of(tmp_path / "grids" / "small.csv")
    assert [r["seed"] for r in rows if r["recipe"] == "dfssd"] == ["0", "1", "2"]
    assert [r["seed"] for r in rows if r["recipe"] == "oracle"] == ["1"]
    text = (tmp_path / "grids" / "small.md").read_text()
    assert "+0.040 [+0.040, +0.040] (3 of 3)" in text
    command = "dfssd benchmark grids/small.yaml data=DATA.zip"
    assert f"```\n{command}\n{command} labeled=0.1 seeds=1,2\n```" in text


def test_table_only_shows_what_is_there_whatever_is_selected(bench, fake, tmp_path):
    bench("seeds=1,2", "labeled=50")
    (tmp_path / "grids" / "small.csv").unlink()
    assert main(["grids/small.yaml", "table=only", "seeds=0"], train=fake) == 0
    rows = rows_of(tmp_path / "grids" / "small.csv")
    assert [(r["labeled"], r["seed"]) for r in rows if r["recipe"] == "dfssd"] == [("50", "1"), ("50", "2")]
    assert "DATA.zip labeled=50 seeds=1,2\n```" in (tmp_path / "grids" / "small.md").read_text()


def test_other_seeds_with_other_settings_are_refused(bench, fake, capsys):
    bench("seeds=1", "epochs=3", "only=dfssd")
    fake.calls.clear()
    assert bench() == 2 and fake.calls == []  # before anything is trained
    assert "baseline-labeled0.1-seed1 was run with epochs=3, the grid now sets epochs=2" in capsys.readouterr().err


def test_seeds_of_a_grid_with_a_given_split_are_found(bench, fake, tmp_path):
    (tmp_path / "lists").mkdir()
    assert bench("seeds=4", split="lists", oracle=None) == 0
    assert bench(split="lists", oracle=None) == 0
    rows = rows_of(tmp_path / "grids" / "small.csv")
    assert [r["seed"] for r in rows if r["recipe"] == "dfssd"] == ["0", "4"]


def test_folders_of_other_things_are_no_runs(bench, tmp_path):
    for name in (
        "dfssd-labeled0.1-seedx",
        "gone-labeled0.1-seed0",
        "dfssd",
        "dfssd-labeled0-seed3",
        "dfssd-labelede-seed1",
    ):
        (tmp_path / "runs" / "small" / name).mkdir(parents=True)
    assert bench() == 0 and len(rows_of(tmp_path / "grids" / "small.csv")) == 5


def test_finished_run_of_another_process_appears_with_the_next_one(bench, fake, tmp_path):
    """What another process finishes while this one trains is in the table that this one writes."""
    grid, data = str(tmp_path / "grids" / "small.yaml"), f"data={tmp_path}/private place/DATA.zip"
    other = FakeTrain()
    other.seeds = {1: 0.05}

    def train(words, log: Path) -> int:
        if parse_arguments(list(words))["name"].startswith("dfssd"):  # the other one writes its table elsewhere
            assert main([grid, data, "seeds=1", "out=elsewhere"], train=other, check=lambda given: None) == 0
        return fake(words, log)

    bench("only=baseline")
    assert main([grid, data, "only=dfssd"], train=train, check=lambda given: None) == 0
    rows = rows_of(tmp_path / "grids" / "small.csv")
    assert [r["seed"] for r in rows if r["recipe"] == "dfssd"] == ["0", "1"]


@pytest.mark.train
def test_processes_that_write_at_the_same_time_leave_whole_tables(bench, tmp_path):
    """Two processes rebuild the tables; a third, this one, finds them whole at any time."""
    bench("seeds=0,1")
    out = tmp_path / "grids"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from dfssd.cli import main\n"
        "assert main(['benchmark', 'grids/small.yaml', 'table=only']) == 0\n"
    )
    before = {file: (out / file).read_text() for file in ("small.csv", "small-means.csv", "small.md")}
    processes = [subprocess.Popen([sys.executable, "-c", script, str(ROOT)], cwd=tmp_path) for _ in range(2)]
    looks = 0
    while any(process.poll() is None for process in processes):
        assert {file: (out / file).read_text() for file in before} == before
        looks += 1
    assert [process.wait() for process in processes] == [0, 0] and looks > 10
    assert not list(out.glob(".*"))  # no temporary file is left


def test_run_that_another_process_makes_is_not_made_twice(bench, fake, tmp_path, capsys):
    with locked(tmp_path / "runs" / "small" / "baseline-labeled0.1-seed0.lock") as held:
        assert held and bench() == 2
    assert "baseline, labeled 0.1, seed 0 is still running in another process: wait" in capsys.readouterr().err
    assert fake.calls == [] and bench() == 0
