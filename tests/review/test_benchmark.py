"""Images reviewed by value against random ones: the two data sets, the plan, and the comparison."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from dfssd.benchmark.review import main
from dfssd.datasets.label_files import read_label_file
from dfssd.evaluation.detections import Detections
from dfssd.files import read_yaml
from dfssd.results.record import FILE
from dfssd.results.sections import Stage
from dfssd.runs.configure import configure
from tests.detection.recorded_run import results, write_run


def images_of(data: Path, part: str) -> set[str]:
    return {path.name for path in (data / "images" / part).iterdir()}


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose unlabeled images all have labels, which it hides; there is no student yet."""
    from dfssd.pipeline import open_run
    from tests.conftest import NAMES, write_squares
    from tests.tiny_detection import TINY, save_detector

    root = tmp_path_factory.mktemp("hidden")
    data = write_squares(root / "data", train=12, val=4, test=4, plain=1)
    tree = {key: value for key, value in read_yaml(data).items() if key != "unlabeled"}
    data.write_text(json.dumps(tree), encoding="utf-8")
    keys = {"data": str(data), "teacher": str(save_detector(root / "t.pt", names=NAMES)), "student": TINY}
    keys |= {"data_dir": str(root / "datasets"), "project": str(root / "runs"), "device": "cpu"}
    run = open_run(configure({**keys, "imgsz": 64, "batch": 4, "epochs": 2, "labeled": 4, "seed": 3}), "dfssd")
    for name in ("prepare", "teacher", "pseudo-label"):
        run.folder.run_stage(name, getattr(run, name.replace("-", "_")), earlier=run.stages())
    return run.folder.path


def finish(folder: Path, level: float, tp: list[int]) -> None:
    """A finished run at ``folder`` whose networks have found these of eight defects, one in each test image."""
    record = results(student=level, teacher=level, baseline=level)
    record.stages = (*record.stages, Stage(name="report", seconds=1.0, status="done"))
    write_run(folder, record)
    assert (folder / FILE).is_file()
    found = Detections(
        tp=np.ones((len(tp), 10), dtype=bool),
        conf=np.full(len(tp), 0.5),
        pred_cls=np.zeros(len(tp), dtype=int),
        image=np.array(tp),
        target_cls=np.zeros(8, dtype=int),
        target_image=np.arange(8),
        images=tuple(f"{i}.png" for i in range(8)),
    )
    for network in ("teacher", "baseline", "student"):
        found.write(folder / "test" / network / "detections.npz")


def test_the_whole_way(hidden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench"
    line = [str(hidden), f"out={out}", "n=3", "teacher_epochs=7"]
    assert main(line) == 0
    value, drawn = out / "value" / "data", out / "random" / "data"
    before = {Path(row).name for row in (hidden / "splits" / "train_labeled.txt").read_text().splitlines()}
    for data in (value, drawn):
        assert before < images_of(data, "train") and len(images_of(data, "train")) == len(before) + 3
        for label in (data / "labels" / "train").iterdir():  # the simulated annotator tells the truth
            [true] = hidden.parents[1].glob(f"datasets/*/labels/{label.name}")
            assert read_label_file(label, 2) == pytest.approx(read_label_file(true, 2), abs=1e-6)
    assert images_of(value, "val") == images_of(drawn, "val") and images_of(value, "test") == images_of(drawn, "test")
    assert images_of(value, "train") != images_of(drawn, "train")

    jobs = json.loads((out / "plan.json").read_text(encoding="utf-8"))["jobs"]
    assert [job["name"] for job in jobs] == ["value", "random"]
    words = [dict(word.partition("=")[::2] for word in shlex.split(job["cmd"])[2:]) for job in jobs]
    assert [own.pop("data") for own in words] == [str(value / "data.yaml"), str(drawn / "data.yaml")]
    assert [own.pop("name") for own in words] == ["value", "random"]
    assert words[0] == words[1] and words[0]["seed"] == "3" and words[0]["teacher_epochs"] == "7"
    assert "labeled" not in words[0] and words[0]["project"] == str(out / "runs")

    times = {path: path.stat().st_mtime_ns for path in value.rglob("*")}
    (drawn / "data.yaml").unlink()  # as if it had been interrupted
    drawn.rename(tmp_path / "half")
    finish(out / "runs" / "value", 0.5, [0, 1, 2, 3, 4, 5, 6, 7])
    assert main(line) == 0
    assert {path: path.stat().st_mtime_ns for path in value.rglob("*")} == times
    assert images_of(drawn, "train") == images_of(tmp_path / "half", "train")
    assert [job["name"] for job in json.loads((out / "plan.json").read_text())["jobs"]] == ["random"]

    finish(out / "runs" / "random", 0.4, [0, 1, 2, 3])
    capsys.readouterr()
    assert main(line) == 0
    assert "student map50_95  by value 0.500, random 0.400, difference +0.100 [" in capsys.readouterr().out
    header, *rows = (out / "result.csv").read_text(encoding="utf-8").splitlines()
    assert header == "network,score,value,random,difference,low,high" and len(rows) == 6
    low, high = map(float, rows[0].split(",")[-2:])
    assert 0 < low < 0.5 < high  # of the detections: all defects against half of them

    assert main([str(hidden), f"out={out}", "n=4"]) == 2
    assert f"{out} was begun with n=3; repeat that line" in capsys.readouterr().err


def test_an_interrupted_training_is_resumed(hidden: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    write_run(out / "runs" / "random", results())
    assert main([str(hidden), f"out={out}", "n=3"]) == 0
    jobs = json.loads((out / "plan.json").read_text(encoding="utf-8"))["jobs"]
    assert jobs[1]["cmd"] == f"python3 train.py resume={out / 'runs' / 'random'}"


def test_a_run_without_hidden_labels_is_refused(made: Path, tmp_path: Path, capsys) -> None:
    """Some of its unlabeled images have no labels at all."""
    assert main([str(made), f"out={tmp_path / 'bench'}", "n=16"]) == 2
    assert "has no labels that the run hides: give a run with labeled= below 1" in capsys.readouterr().err
    assert main([f"out={tmp_path / 'bench'}"]) == 2
    assert "run is missing" in capsys.readouterr().err
