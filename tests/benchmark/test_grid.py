"""A grid YAML: what is read from it, in which order its runs are made, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dfssd.benchmark.grid import Grid
from dfssd.benchmark.running import check_baseline_fits
from dfssd.config import parse_arguments
from dfssd.errors import UserError
from dfssd.runs.configure import configure
from tests.benchmark.fake_runs import SMALL

ROOT = Path(__file__).resolve().parents[2]


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
    assert len(runs) >= 3 and path.read_text(encoding="utf-8").startswith("#")
    for run in runs:
        config = configure(parse_arguments(run.arguments(Path("runs") / path.stem)))
        check_baseline_fits(run, Path("runs") / path.stem)
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
        ({"cells": {"baseline": {}, "baseline_scratch": {}}}, "cannot be called 'baseline_scratch'"),
        ({"cells": {"baseline": {}, "dfssd": {"seed": 3}}}, "seed cannot be set in cells.dfssd"),
        ({"common": {"name": "x"}}, "name cannot be set in common"),
        ({"cells": {"baseline": {}, "dfssd": {"baseline": "runs/x"}}}, "baseline cannot be set in cells.dfssd"),
        ({"cells": {"baseline": {"baseline": False}}}, "baseline cannot be set in cells.baseline"),
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
    with pytest.raises(
        UserError, match=r"seed cannot be set in common or on the command line: .* \(seeds= and labeled="
    ):
        read(tmp_path, {"seed": 2})


# seeds and label shares of the command line


def points(grid: Grid) -> list[tuple[float, int]]:
    return [(run.labeled, run.seed) for run in grid.runs if run.cell == "dfssd"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"seeds": "1,2"}, [(0.1, 1), (0.1, 2)]),
        ({"seeds": [0, 1]}, [(0.1, 0), (0.1, 1)]),
        ({"seeds": 3}, [(0.1, 3)]),
        ({"labeled": 0.05}, [(0.05, 0)]),
        ({"labeled": "0.05,50", "seeds": 1}, [(0.05, 1), (50, 1)]),
    ],
)
def test_command_line_chooses_seeds_and_shares(tmp_path, words, expected):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    grid = Grid.read(path, **words)
    assert points(grid) == expected
    assert [run.seed for run in grid.runs if run.cell == "oracle"] == list(dict.fromkeys(s for _, s in expected))


def test_chosen_share_keeps_its_own_seeds(tmp_path):
    tree = {key: value for key, value in SMALL.items() if key != "seeds"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**tree, "labeled": {0.1: [0, 1], 50: [2]}}))
    assert points(Grid.read(path, labeled=50)) == [(50, 2)]
    assert points(Grid.read(path, labeled="0.1,50", seeds=7)) == [(0.1, 7), (50, 7)]
    with pytest.raises(UserError, match=r"labeled=0.2: small.yaml has no seeds for it; give them"):
        Grid.read(path, labeled=0.2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seeds": "a"}, "seeds=a: give whole numbers"),
        ({"seeds": -1}, "seeds=-1: give whole numbers"),
        ({"seeds": 0.5}, "seeds=0.5: give whole numbers"),
        ({"seeds": []}, "seeds=.*: give whole numbers"),
        ({"labeled": 0}, "labeled=0: give shares"),
        ({"labeled": "some"}, "labeled=some: give shares"),
        ({"labeled": ""}, "labeled=: give shares"),
    ],
)
def test_wrong_seeds_and_shares_are_one_line(tmp_path, words, message):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    with pytest.raises(UserError, match=message) as caught:
        Grid.read(path, **words)
    assert "\n" not in str(caught.value)


# cells that teach other cells

TAUGHT = {
    "baseline": {"recipe": "baseline"},
    "last": {"teacher": "round2"},
    "round1": {"student": "yolov8s.yaml", "baseline": False, "guard": False},
    "round2": {"student": "yolov8s.yaml", "baseline": False, "guard": False, "teacher": "round1"},
    "other": {"teacher": "big.pt"},
    "alone": {"recipe": "dfssd", "teacher": "none", "teacher_kind": "ema", "pseudo": "online"},
    "control": {"recipe": "baseline", "student": "yolov8s.yaml", "teacher": "none", "baseline": True},
}


def test_network_of_a_cell_teaches_another(tmp_path):
    grid = read(tmp_path, {"data": "demo"}, cells=TAUGHT)
    assert [run.cell for run in grid.runs] == [
        "baseline", "round1", "round2", "last", "other", "alone", "control", "oracle"
    ]  # fmt: skip
    assert grid.cells == [*TAUGHT, "oracle"]  # the table keeps the order of the YAML
    given = {run.cell: parse_arguments(run.arguments(Path("runs/small"))) for run in grid.runs}
    assert given["round1"]["teacher"] == "runs/small/baseline-labeled0.1-seed0/weights/teacher.pt"
    assert given["round2"]["teacher"] == "runs/small/round1-labeled0.1-seed0/weights/student.pt"
    assert given["last"]["teacher"] == "runs/small/round2-labeled0.1-seed0/weights/student.pt"
    assert given["other"]["teacher"] == "big.pt" and given["alone"]["teacher"] is None
    for cell in ("round1", "round2"):
        assert given[cell]["baseline"] is False and given[cell]["guard"] is False
    assert given["control"]["baseline"] is True
    assert given["last"]["baseline"] == "runs/small/baseline-labeled0.1-seed0"
    assert all(run.base and run.base.cell == "baseline" for run in grid.runs[1:-1])
    for run in grid.runs:
        configure(given[run.cell])
        check_baseline_fits(run, Path("runs/small"))


def test_only_brings_all_teachers_along(tmp_path):
    grid = read(tmp_path, cells=TAUGHT)
    assert [run.cell for run in grid.select("last")] == ["baseline", "round1", "round2", "last"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"a": {"teacher": "b"}, "b": {"teacher": "a"}}, "form a circle, a <- b <- a "),
        ({"a": {"teacher": "a"}}, "form a circle, a <- a "),
        ({"baseline": {"teacher": "a"}, "a": {}}, "form a circle, baseline <- a <- baseline "),
        (
            {"round1": {}, "a": {"teacher": "round"}},
            "cells.a has teacher: round, which is no file and no cell; did you",
        ),
        ({"a": {"teacher": "oracle"}}, "cells.a has teacher: oracle, which is no file and no cell; known: baseline, a"),
        ({"a": {"teacher": 3}}, "cells.a has teacher: 3, which is no file and no cell"),
    ],
)
def test_circles_and_unknown_teachers_are_refused(tmp_path, cells, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, cells={"baseline": {"recipe": "baseline"}, **cells})
    assert "\n" not in str(caught.value)


def test_oracle_is_not_taught_by_a_cell(tmp_path):
    with pytest.raises(UserError, match="oracle has teacher: dfssd, a cell with fewer labels"):
        read(tmp_path, oracle={"teacher": "dfssd"})


def test_teaching_cell_without_student_teaches_by_its_baseline(tmp_path):
    grid = read(tmp_path, cells={**TAUGHT, "pupil": {"teacher": "control"}})
    [pupil] = [run for run in grid.runs if run.cell == "pupil"]
    weights = tmp_path / "control-labeled0.1-seed0" / "weights"
    weights.mkdir(parents=True)
    (weights / "baseline.pt").touch()
    assert parse_arguments(pupil.arguments(tmp_path))["teacher"] == (weights / "baseline.pt").as_posix()


def test_only_brings_the_baseline_along(tmp_path):
    grid = read(tmp_path)
    assert [run.cell for run in grid.select("dfssd")] == ["baseline", "dfssd"]
    assert [run.cell for run in grid.select("oracle")] == ["oracle"]
    with pytest.raises(UserError, match="only=dfsd: no such cell; did you mean 'dfssd'"):
        grid.select("dfsd")


def test_only_the_base_run_refines_the_teacher(tmp_path):
    cells = {"baseline": {"recipe": "baseline"}, "dfssd": None, "again": {"teacher_rounds": 2}}
    grid = read(tmp_path, given={"teacher_rounds": 1}, cells=cells, oracle=None)
    assert {run.cell: run.values.get("teacher_rounds") for run in grid.runs} == {
        "baseline": 1,
        "dfssd": None,
        "again": 2,
    }
