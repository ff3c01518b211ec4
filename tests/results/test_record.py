"""The record of a run: what is read is what was written, old records included; what is wrong is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dfssd.errors import UserError
from dfssd.results.record import RECORDS, SCHEMA, BoxRecord, MaskRecord, RunRecord, is_finished, read_run, upgraded
from dfssd.results.sections import (
    BoxData,
    Difference,
    Differences,
    Gain,
    Health,
    ModelSelection,
    RunFacts,
    Stage,
    Training,
)

EXAMPLES = Path(__file__).parent / "without_schema"
"""Records of two small runs of the version before ``schema``, as it wrote them (paths of the machine replaced)."""

FACTS = {"command": "python train.py data=demo", "recipe": "dfssd", "seed": 0, "device": "cpu", "machine": "Linux"}
FACTS |= {"dfssd": "0.1.0", "ultralytics": "8.4", "torch": "2", "python": "3.11", "git": None}


def renamed(name: str) -> dict[str, Any]:
    """An example with the scores renamed in its text, without any code that is tested here."""
    text = (EXAMPLES / f"{name}.json").read_text(encoding="utf-8")
    text = text.replace("val_map50_95", "val_score").replace("val_miou_fg", "val_score")
    task, measure = {"boxes": ("detect", "mAP50-95"), "masks": ("semantic", "mIoU of the defects")}[name]
    return {"schema": 1, "task": task, "measure": measure, **json.loads(text)}


def started(**sections: Any) -> BoxRecord:
    return BoxRecord(run=RunFacts(**FACTS), **sections)


def written(tmp_path: Path, tree: Any) -> Path:
    path = tmp_path / "results.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "kind"), [("boxes", BoxRecord), ("masks", MaskRecord)])
def test_record_of_the_version_before_is_read_whole(name: str, kind: type[RunRecord]) -> None:
    record = read_run(EXAMPLES / f"{name}.json")
    assert type(record) is kind and record.finished
    assert record.to_json() == renamed(name)
    assert "val_score" in json.dumps(record.to_json()) and "val_score" not in (EXAMPLES / f"{name}.json").read_text()
    student = record.training["student"]
    assert student.val_score == max(score for score in student.val_score_by_epoch if score is not None)
    assert len(student.val_score_by_epoch) == student.epochs_done
    assert record.guard is not None and record.guard.student_val_score == student.val_score


@pytest.mark.parametrize("name", ["boxes", "masks"])
def test_what_is_written_is_what_is_read(tmp_path: Path, name: str) -> None:
    record = read_run(EXAMPLES / f"{name}.json")
    record.write(tmp_path / "results.json")
    again = read_run(tmp_path)  # the folder will do
    assert again == record and json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == renamed(name)
    first = (tmp_path / "results.json").read_bytes()
    again.write(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == first
    assert first.startswith(
        b'{\n "schema": 1,\n "task": "semantic",' if name == "masks" else b'{\n "schema": 1,\n "task": "d'
    )


def test_typed_access_to_both_tasks() -> None:
    boxes, masks = BoxRecord.read(EXAMPLES / "boxes.json"), MaskRecord.read(EXAMPLES / "masks.json")
    assert boxes.data and boxes.data.train_labeled == 12 and boxes.data.classes == ("dark", "bright")
    assert boxes.test["student"].per_class["dark"].instances == 12
    assert boxes.distill and [set(epoch.per_class) for epoch in boxes.distill.health] == [{"dark", "bright"}] * 30
    assert boxes.export and boxes.export.tolerance and boxes.export.tolerance.box_px == 0.5
    assert masks.data and masks.data.split == "official" and masks.data.leaks.test == 2
    assert masks.training["student"].losses["kd"].weight == 15 and masks.compare == {"compare1": "yolo26n-sem.yaml"}
    assert masks.export and masks.export.answers == "logits" and masks.pictures[0].image.endswith(".png")


def test_absent_and_null_are_kept_apart() -> None:
    record = started()
    assert record.export is None and "export" not in record.to_json()
    record.export = None
    assert record.to_json()["export"] is None and "guard" not in record.to_json()


def test_stages_fill_the_record_and_only_with_what_fits() -> None:
    record = started()
    counts = dict.fromkeys(("images", "train_labeled", "train_unlabeled", "val", "test", "duplicates"), 4)
    record.data = BoxData(name="demo", classes=("pit",), **counts)
    record.stages = (*record.stages, Stage(name="prepare", seconds=1, status="done"))
    assert record.to_json()["data"] == {"name": "demo", "classes": ["pit"], **counts}
    assert not record.finished
    record.stages = (*record.stages, Stage(name="report", seconds=1, status="done"))
    assert record.finished
    with pytest.raises(ValidationError):
        record.data = MaskRecord.read(EXAMPLES / "masks.json").data
    with pytest.raises(ValidationError):
        record.data.images = 5
    with pytest.raises(ValidationError):
        record.typo = 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True])
def test_number_that_is_none_is_rejected(value: Any) -> None:
    given: dict[str, Any] = {"chosen": "student", "why": "", "baseline_val_score": None}
    assert ModelSelection(**given, student_val_score=0.5).student_val_score == 0.5
    with pytest.raises(ValidationError):
        ModelSelection(**given, student_val_score=value)


def test_number_in_a_table_of_numbers_is_rejected_too() -> None:
    counts = dict.fromkeys(("epochs", "epochs_done", "batches", "optimizer_steps", "batch", "best_epoch"), 1)
    known: dict[str, Any] = {**counts, "optimizer": "SGD", "lr0": 0.01, "val_score": 0.1}
    assert Training(**known, val_score_by_epoch=[0.1]).val_score_by_epoch == (0.1,)
    with pytest.raises(ValidationError):
        Training(**known, val_score_by_epoch=[float("nan")])


def test_health_takes_classes_and_nothing_else() -> None:
    known = dict.fromkeys(("accepted", "ignored", "score", "agreement", "precision", "recall"), None)
    assert Health(**known, **{"class/oil spots": 0.5}).per_class == {"oil spots": 0.5}
    for wrong in ({"class/pit": "many"}, {"pit": 0.5}):
        with pytest.raises(ValidationError):
            Health(**known, **wrong)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ('{"run": ', "cannot be read"),
        ("[1, 2]", "is not the record of a run"),
        ({"steps": [], "rows": []}, "is not the record of a run"),
        ({"run": {}, "stages": []}, "run.dfssd: Field required"),
        ({**started().to_json(), "moods": []}, "moods: Extra inputs are not permitted"),
        ({**started().to_json(), "schema": SCHEMA + 1}, "later version of dfssd (schema 2, this one reads up to 1)"),
        ({**started().to_json(), "schema": "one"}, "schema"),
        (
            {**started().to_json(), "task": "beauty"},
            "is the record of task beauty, not detect or semantic",
        ),
        ({**started().to_json(), "measure": "beauty"}, "is damaged: measure: Input should be 'mAP50-95'"),
        ({"run": FACTS, "training": {"baseline": None}}, "is damaged: training.baseline"),
        ({"run": FACTS, "guard": 3}, "is damaged: guard"),
        ({"run": FACTS, "training": "done"}, "is damaged: training"),
    ],
)
def test_wrong_file_is_one_line_that_names_it(tmp_path: Path, tree: Any, words: str) -> None:
    path = written(tmp_path, tree)
    with pytest.raises(UserError) as e:
        RunRecord.read(path)
    assert str(e.value).startswith(str(path)) and words in str(e.value) and "\n" not in str(e.value)
    assert not is_finished(tmp_path)


def test_missing_file_and_other_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json does not exist: give the folder of a run"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="is the record of task detect, not semantic"):
        MaskRecord.read(EXAMPLES / "boxes.json")
    with pytest.raises(UserError, match="is the record of task semantic, not detect"):
        BoxRecord.read(EXAMPLES / "masks.json")


def test_record_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    started().write(path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left"):
        started(guard=None).write(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("task", ["detect", "semantic"])
def test_old_record_without_any_stage_is_what_its_reader_expects(tmp_path: Path, task: str) -> None:
    path = written(tmp_path, {"run": FACTS, "stages": []})
    kind = RECORDS[task]
    assert type(kind.read(path)) is kind
    assert type(RunRecord.read(path)) is BoxRecord


def test_upgrade_leaves_everything_else_alone() -> None:
    tree: dict[str, Any] = {
        "run": FACTS,
        "stages": [],
        "guard": None,
        "training": {"teacher": {"val_map50_95": 0.5, "epochs": 3}},
    }
    before = json.dumps(tree)
    assert upgraded(tree) == {
        "schema": 1,
        "task": "detect",
        "measure": "mAP50-95",
        "run": FACTS,
        "stages": [],
        "guard": None,
        "training": {"teacher": {"val_score": 0.5, "epochs": 3}},
    }
    assert json.dumps(tree) == before


def test_finished_is_known_by_the_last_stage(tmp_path: Path) -> None:
    assert not is_finished(tmp_path)
    record = started(stages=[Stage(name="test", seconds=1, status="done")])
    record.write(tmp_path / "results.json")
    assert not is_finished(tmp_path)
    record.stages = (*record.stages, Stage(name="report", seconds=1, status="done"))
    record.write(tmp_path / "results.json")
    assert is_finished(tmp_path)


@pytest.mark.parametrize(("name", "score"), [("boxes", "map50_95"), ("masks", "miou_fg")])
def test_gain_is_as_recorded_and_without_interval_where_none_was(name: str, score: str) -> None:
    record = read_run(EXAMPLES / f"{name}.json")
    assert record.differences is None
    gain, scores = record.gain("student", "baseline", score), record.test
    expected = getattr(scores["student"], score) - getattr(scores["baseline"], score)
    assert gain is not None and gain.value == expected and gain.low is gain.high is None
    assert record.gain("student", "nobody", score) is None and record.gain("student", "baseline", "beauty") is None
    known = Gain(value=0.5, low=0.25, high=0.75)
    pair = Difference(network="student", reference="baseline", gains={score: known})
    record.differences = Differences(method="bootstrap", level=0.95, draws=1000, pairs=(pair,))
    assert record.gain("student", "baseline", score) == known
    other = record.gain("baseline", "student", score)  # not recorded this way around
    assert other is not None and other.value == -expected and other.low is None
