"""What a tracker is told about a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfssd.config.schema import TRACKERS as NAMES
from dfssd.runs.configure import configure
from dfssd.tracking import facts
from dfssd.tracking.tracker import TRACKERS, load_trackers
from tests.detection.recorded_run import results, write_run
from tests.reporting.records import without
from tests.segmentation import recorded_run as masks


def test_every_tracker_of_the_schema_exists() -> None:
    assert tuple(TRACKERS) == NAMES


@pytest.mark.parametrize(
    ("project", "name"),
    [
        ("runs", "runs"),
        ("runs/cr7", "runs/cr7"),
        ("/home/me/plant runs", "plant runs"),
        ("../shared/runs", "runs"),
        ("~/runs", "runs"),
        ("..", "runs"),
        ("/", "runs"),
    ],
)
def test_project_is_named_without_the_places_of_a_machine(project: str, name: str) -> None:
    assert facts.project_name(project) == name


def test_parameters_are_keys_terms_arguments_data_and_versions() -> None:
    config = configure(
        {"data": "demo", "epochs": 7, "hwjs.weight": 2, "balance": "fixed", "name": "x", "track": "mlflow"}
    )
    found = facts.parameters(config, results())
    assert found["recipe"] == "dfssd" and found["pseudo.tau0"] == 0.2 and found["epochs"] == 7
    assert found["hwjs.weight"] == 2 and found["hwjs.schedule"] == "constant"
    assert found["data"] == "demo" and found["data.train_labeled"] == 96 and found["data.train_unlabeled"] == 192
    assert found["data.classes"].startswith("inclusions, dents, ")
    assert found["run.ultralytics"] == "8.4.190" and found["run.command"] == "python train.py data=demo"
    assert not {"name", "project", "resume", "exist_ok"} & set(found), "where the files lie decides nothing"
    assert not [name for name in found if name.startswith("seg.")], "it acts in the other task"
    assert "data.images" not in facts.parameters(config, without(results(), "data"))


def test_values_of_an_epoch_are_those_that_were_computed() -> None:
    row = {
        "epoch": "2",
        "time": "6.2",
        "train/box_loss": "1.5",
        "train/hwjs": "0.18",
        "metrics/mAP50-95(B)": "0.25",
        "metrics/mAP50(B)": "nan",
        "val/box_loss": "1.7",
        "val/hwjs": "0",
        "lr/pg0": "0.01",
        "pseudo/class/oil spots": "0",
        "weight/hwjs": "3.5",
        "note": "none",
    }
    assert facts.epoch_values(row) == {
        "epoch": 2,
        "seconds": 6.2,
        "train/box_loss": 1.5,
        "train/hwjs": 0.18,
        "val/mAP50-95": 0.25,
        "val/box_loss": 1.7,
        "lr/pg0": 0.01,
        "pseudo/class/oil spots": 0,
        "weight/hwjs": 3.5,
    }


def test_results_are_scores_differences_and_operating_points() -> None:
    record = results(student=0.412, baseline=0.38)
    found = facts.results(record)
    assert found["test/student/map50_95"] == 0.412 and found["test/baseline/instances"] == 144
    balanced, *others = record.operating["student"].points
    assert balanced.test.recall and balanced.wanted is None
    assert found["operating/student/balanced/ng_recall"] == balanced.test.recall.value
    assert found["operating/student/balanced/ng_recall_low"] == balanced.test.recall.low
    assert found["operating/student/balanced/escapes"] == balanced.test.defective - balanced.test.found
    assert found["operating/student/balanced/threshold/oil spots"] == balanced.thresholds["oil spots"]
    wanted = [point.wanted for point in others]
    assert wanted and all(f"operating/student/false_alarms_{100 * w:g}_percent/ng_recall" in found for w in wanted if w)
    assert not [name for name in found if name.startswith("difference/")], "this record has none"
    mean = facts.results(masks.results())
    assert mean["test/student/miou_fg"] == masks.results().test["student"].miou_fg
    assert facts.results(without(record, "test", "operating")) == {}


def test_files_are_those_that_there_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "mine", results())
    assert list(facts.files(folder)) == ["results.json", "run.yaml", "weights/student.pt"]
    for name in ("student.onnx", "student_openvino_model/student.bin"):
        (folder / "deploy" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "deploy" / name).write_bytes(b"x")
    found = facts.files(folder)
    assert list(found)[2:] == ["deploy/student.onnx", "deploy/student_openvino_model/student.bin"]
    assert all(file == folder / name for name, file in found.items())


def test_trackers_that_are_not_installed_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from dfssd import UserError
    from dfssd.tracking import tracker

    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        load_trackers(["mlflow", "wandb"])
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "pip install mlflow-skinny, or leave mlflow out",
        "pip install wandb, or leave wandb out",
    ]
    assert str(caught.value).startswith("track=mlflow needs the package mlflow-skinny (it is not installed): pip")
