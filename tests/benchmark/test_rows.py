"""Rows of a benchmark, read from the records of runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dfssd.benchmark.rows import rows_of_run, shown_command


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
    rows = rows_of_run(folder, {"dfssd": None}, labeled=0.1, seed=0)
    assert rows[0].values["seconds"] == pytest.approx(39.0)
    assert np.isclose(rows[0].map50_95, 0.34)
