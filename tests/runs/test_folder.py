"""The folder of a run: its name, its record, stages that are kept, damaged records and those of the version before."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dfssd.cli import main
from dfssd.detection.run import DetectionRun
from dfssd.errors import UserError
from dfssd.files import read_yaml, write_yaml
from dfssd.log import LOGGER
from dfssd.results.record import BoxRecord, MaskRecord, RunRecord
from dfssd.results.sections import Status
from dfssd.runs.configure import configure
from dfssd.runs.folder import RunFolder
from dfssd.runs.model_selection import check_baseline, check_same_data, take_baseline
from dfssd.segmentation.run import SegmentationRun
from tests.conftest import write_squares
from tests.segmentation.material import neu_seg

EXAMPLES = Path(__file__).parents[1] / "results" / "without_schema"

STAGES = ("prepare", "teacher", "export")


def create(tmp_path: Path, **given: Any) -> RunFolder:
    return RunFolder.create(configure({"project": str(tmp_path / "runs"), "name": "x", **given}), "the line")


def resume(folder: Path) -> RunFolder:
    return RunFolder.resume(configure({"resume": str(folder)}))[0]


def test_existing_name_counts_up_and_exist_ok_starts_clean(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", LOGGER.name):
        assert [create(tmp_path).path.name for _ in range(3)] == ["x", "x2", "x3"]
    told = [message for message in caplog.messages if "exists" in message]
    assert told[-1] == f"{Path('runs/x')} exists: this run is {Path('runs/x3')} (exist_ok=true overwrites)"
    assert len(told) == 2
    (tmp_path / "runs" / "x" / "weights").mkdir()
    (tmp_path / "runs" / "x" / "tensorboard").mkdir()
    for file in ("report.md", "segmentation.csv", "tracking.json"):
        (tmp_path / "runs" / "x" / file).write_text("old", encoding="utf-8")
    again = create(tmp_path, exist_ok=True)
    assert again.path.name == "x" and not (again.path / "weights").exists()
    assert sorted(p.name for p in again.path.iterdir()) == ["results.json", "run.yaml"]


@pytest.mark.parametrize(("recipe", "kind"), [("dfssd", BoxRecord), ("mffmetal", MaskRecord)])
def test_new_run_has_the_record_of_its_task(tmp_path: Path, recipe: str, kind: type[RunRecord]) -> None:
    folder = create(tmp_path, recipe=recipe, seed=7)
    record = kind.read(folder.path / "results.json")
    assert record == folder.record and type(record) is kind
    assert record.run.command == "the line" and record.run.recipe == recipe and record.run.seed == 7
    assert set(record.to_json()) == {"schema", "task", "measure", "run"}


def test_stage_is_done_once_and_those_after_it_anew(tmp_path: Path) -> None:
    folder = create(tmp_path)
    worked: list[str] = []

    def work(name: str, status: Status = "done") -> None:
        def note() -> Status:
            worked.append(name)
            return status

        folder.run_stage(name, note, earlier=STAGES[: STAGES.index(name)])

    for name in ("prepare", "teacher", "export"):
        work(name, "failed" if name == "export" else "done")
    kept = resume(folder.path)
    assert [stage.name for stage in kept.record.stages] == ["prepare", "teacher", "export"]
    assert kept.stage("teacher") and kept.stage("export") is None
    work("teacher")
    work("export")
    assert worked == ["prepare", "teacher", "export", "export"]
    folder.record.stages = folder.record.stages[1:]  # the first one is to be done again
    work("prepare")
    assert [stage.name for stage in RunRecord.read(folder.path / "results.json").stages] == ["prepare"]


def test_run_from_before_there_was_a_key_had_its_default(tmp_path: Path) -> None:
    folder = create(tmp_path, seed=7)
    tree = read_yaml(folder.path / "run.yaml")
    for key in ("task", "strong_view"):
        del tree["config"][key]
    write_yaml(folder.path / "run.yaml", tree)
    _, config = RunFolder.resume(configure({"resume": str(folder.path), "task": "detect", "strong_view": 0.0}))
    assert config["task"] == "detect" and config["strong_view"] == 0 and config.seed == 7
    with pytest.raises(UserError, match=r"strong_view=0\.5, but the run was started with strong_view=0"):
        RunFolder.resume(configure({"resume": str(folder.path), "strong_view": 0.5}))


def test_key_that_may_change_keeps_its_value_unless_it_is_given(tmp_path: Path) -> None:
    folder = create(tmp_path, track="tensorboard", loader="ultralytics")
    _, config = RunFolder.resume(configure({"resume": str(folder.path), "loader": "auto"}))
    assert config.trackers == ["tensorboard"] and config["loader"] == "auto"
    assert config["project"] == str(tmp_path / "runs")
    _, config = RunFolder.resume(configure({"resume": str(folder.path), "track": None}))
    assert config.trackers == []


def test_session_that_fails_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    folder = create(tmp_path)
    folder.run_stage("prepare", lambda: "done", earlier=())
    before = (folder.path / "results.json").read_bytes()

    def fail() -> Any:
        folder.record.export = None
        raise RuntimeError("the disk burns")

    with pytest.raises(RuntimeError):
        folder.run_stage("teacher", fail, earlier=("prepare",))
    assert (folder.path / "results.json").read_bytes() == before


def test_each_session_is_noted_also_where_the_record_was_removed(tmp_path: Path) -> None:
    folder = create(tmp_path, seed=7, device="cpu")
    resume(folder.path)
    record = resume(folder.path).record
    assert len(record.run.resumed) == 2 and record.run.resumed[0].torch == record.run.torch
    assert {session.device for session in record.run.resumed} == {record.run.device}, "that of the run, not of the line"
    (folder.path / "results.json").unlink()
    anew = RunRecord.read(resume(folder.path).path / "results.json")
    assert anew.run.command == "the line" and len(anew.run.resumed) == 1 and not anew.stages


@pytest.mark.parametrize("content", ["empty", "cut", "something else"])
@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("train/student/weights/last.pt", "remove {run}/train/student to repeat that training"),
        ("train/student/weights/state.pt", "remove {run}/train/student to repeat that training"),
        ("weights/teacher.pt", "restore it, or remove {run}/results.json to run all stages again"),
    ],
)
def test_damaged_checkpoint_is_noticed_at_the_start(
    tmp_path: Path, teacher_file: Path, content: str, file: str, remedy: str
) -> None:
    folder = create(tmp_path)
    checkpoint = folder.path / file
    checkpoint.parent.mkdir(parents=True)
    shutil.copyfile(teacher_file, checkpoint)
    for half in (checkpoint.with_name(".teacher.123.part.pt"), folder.path / "train/student/weights/writing_last.pt"):
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half")
    resume(folder.path)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2]}.get(content, b"no checkpoint"))
    left = checkpoint.stat().st_size
    message = f"^{checkpoint} is damaged, {left:,} bytes are left of it; {remedy.format(run=folder.path)}$"
    with pytest.raises(UserError, match=message):
        resume(folder.path)
    torch.save([1], checkpoint, _use_new_zipfile_serialization=False)  # as of old versions
    resume(folder.path)


def squares_of(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A data set with boxes, an image in it, and its labels."""
    data = write_squares(tmp_path / "set", train=8, val=4, test=4, plain=2)
    image = sorted((data.parent / "train" / "images").iterdir())[0]
    return data, image, data.parent / "train" / "labels" / f"{image.stem}.txt"


def masks_of(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A data set with masks, an image in it, and its mask."""
    data = neu_seg(tmp_path / "set")
    return data, data / "images" / "training" / "000001.jpg", data / "annotations" / "training" / "000001.png"


PREPARED: Any = pytest.mark.parametrize(
    ("recipe", "make", "run"),
    [("baseline", squares_of, DetectionRun), ("mffmetal", masks_of, SegmentationRun)],
    ids=["boxes", "masks"],
)


def prepared(tmp_path: Path, recipe: str, run: type[DetectionRun | SegmentationRun], data: Path) -> RunFolder:
    """A run that was interrupted after its first stage."""
    given = {"recipe": recipe, "teacher": None, "student_training": "skip", "data": str(data), "device": "cpu"}
    given |= {"data_dir": str(tmp_path / "imported"), "project": str(tmp_path / "runs")}
    config = configure(given)
    folder = RunFolder.create(config, "the line")
    folder.run_stage("prepare", run(folder, config).prepare, earlier=())
    return folder


@PREPARED
def test_run_goes_on_with_the_data_that_it_was_started_with(tmp_path: Path, recipe: str, make: Any, run: Any) -> None:
    data, image, labels = make(tmp_path)
    folder = prepared(tmp_path, recipe, run, data)
    before = labels.read_bytes()
    for file in (image, labels):
        file.touch()
    resume(folder.path)
    record = (folder.path / "results.json").read_bytes()
    other = next(file for file in sorted(labels.parent.iterdir()) if file.read_bytes() != before)
    labels.write_bytes(other.read_bytes())
    with pytest.raises(
        UserError, match=rf"^resume={folder.path}: .* changed since the run was started: .*{labels.name}"
    ):
        resume(folder.path)
    assert (folder.path / "results.json").read_bytes() == record, "a session that never began"
    labels.write_bytes(before)
    resume(folder.path)


@PREPARED
def test_files_that_are_gone_are_named(tmp_path: Path, recipe: str, make: Any, run: Any) -> None:
    data, image, labels = make(tmp_path)
    folder = prepared(tmp_path, recipe, run, data)
    for file in (image, labels):
        moved = file.with_name(f"moved{file.suffix}")
        file.rename(moved)
        with pytest.raises(UserError, match=rf"1 file vanished since the run was started: {file} \(now {moved}\)"):
            resume(folder.path)
        moved.rename(file)
    resume(folder.path)


@PREPARED
def test_added_files_are_told(
    tmp_path: Path, recipe: str, make: Any, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data, image, _ = make(tmp_path)
    folder = prepared(tmp_path, recipe, run, data)
    capsys.readouterr()
    new = image.with_name(f"new{image.suffix}")
    shutil.copyfile(image, new)
    resume(folder.path)
    assert f"warning: 1 file added to the data since the run was started, and not used by it: {new}" in (
        capsys.readouterr().out
    )


@PREPARED
def test_data_counts_until_the_run_is_complete(tmp_path: Path, recipe: str, make: Any, run: Any) -> None:
    data, image, _ = make(tmp_path)
    folder = prepared(tmp_path, recipe, run, data)
    image.write_bytes(b"")
    folder.run_stage("export", lambda: "failed", earlier=("prepare",))
    folder.run_stage("report", lambda: "done", earlier=("prepare", "export"))
    with pytest.raises(UserError, match="changed"):  # the export will be tried again
        resume(folder.path)
    folder.run_stage("export", lambda: "done", earlier=("prepare",))
    folder.run_stage("report", lambda: "done", earlier=("prepare", "export"))
    resume(folder.path)


@PREPARED
def test_data_that_is_not_prepared_yet_may_change(tmp_path: Path, recipe: str, make: Any, run: Any) -> None:
    data, image, _ = make(tmp_path)
    folder = prepared(tmp_path, recipe, run, data)
    image.unlink()
    folder.record.stages = ()
    folder.save()
    resume(folder.path)


SETTINGS = "config: {}\nterms: {}\ntrain: {}\ngiven: {}\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", "{half", "results.json cannot be read (Expecting"),
        ("results.json", "", "results.json cannot be read (Expecting"),
        ("results.json", "[" * 200_000, "results.json cannot be read"),
        ("results.json", "{}", "results.json is not the record of a run: it has no section 'run'"),
        ("results.json", "[1,2]", "results.json is not the record of a run: it has no section 'run'"),
        ("results.json", "null", "results.json is not the record of a run: it has no section 'run'"),
        (
            "run.yaml",
            "terms: {}\ntrain: {}\ngiven: {}\n",
            "run.yaml is damaged: it has no section 'config'; restore it",
        ),
        ("run.yaml", SETTINGS.replace("train: {}", "train: []"), "run.yaml is damaged: it has no section 'train'"),
        (
            "run.yaml",
            SETTINGS.replace("{}", "{task: 3}", 1),
            "run.yaml is damaged: task=3 must be one of: detect, semantic",
        ),
        ("run.yaml", "", "run.yaml is damaged: it has no section 'config'"),
        ("run.yaml", "config: {", "is not valid YAML"),
        ("run.yaml", "config: " + "[" * 5000, "is not valid YAML"),
        ("run.yaml", "config: 2001-99-99", "is not valid YAML (month must be in 1..12)"),
        ("run.yaml", "- 1", "run.yaml must hold 'key: value' lines"),
    ],
)
def test_damaged_file_of_a_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, message: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text(SETTINGS, encoding="utf-8")
    (run / file).write_text(content, encoding="utf-8")
    assert main([f"resume={run}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert file == "run.yaml" or "to run all stages again" in error


PLACES = (
    "",
    "command",
    "config",
    "config.task",
    "config.recipe",
    "config.seg.kd",
    "terms",
    "terms.cwd",
    "train",
    "given",
)


@pytest.mark.parametrize("place", PLACES)
def test_whatever_stands_in_the_settings_of_a_run_they_are_read_or_refused_in_one_line(
    tmp_path: Path, place: str
) -> None:
    folder = create(tmp_path).path
    section, _, name = place.partition(".")
    line, refused = configure({"resume": str(folder)}), 0
    for value in (None, 1, "x", [], [1], {}, {"a": 1}, True, float("inf"), "two\nlines"):
        tree = read_yaml(folder / "run.yaml")
        whole = (folder / "run.yaml").read_bytes()
        if name:
            tree[section][name] = value
        write_yaml(folder / "run.yaml", {**tree, section: value} if section and not name else tree if name else value)
        for read in (RunFolder.resume, lambda config: RunFolder.open(Path(config["resume"]))):
            with contextlib.suppress(UserError):
                read(line)
                continue
            refused += 1
        (folder / "run.yaml").write_bytes(whole)
    assert refused >= 10


@pytest.mark.parametrize(("recipe", "example"), [("dfssd", "boxes"), ("mffmetal", "masks")])
def test_run_of_the_version_before_is_resumed(tmp_path: Path, recipe: str, example: str) -> None:
    folder = create(tmp_path, recipe=recipe).path
    shutil.copyfile(EXAMPLES / f"{example}.json", folder / "results.json")
    run = resume(folder)
    assert run.stage("report") and run.record.training["student"].val_score is not None
    tree = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert tree["schema"] == 1 and "val_score" in tree["training"]["student"] and "resumed" not in tree["run"]


def test_pretrained_baseline_comes_with_what_it_began_with(tmp_path: Path) -> None:
    given = {"student": "yolov8n.yaml", "pretrain": "dense"}
    folder = create(tmp_path, **given).path
    shutil.copyfile(EXAMPLES / "boxes.json", folder / "results.json")
    recorded = read_yaml(folder / "run.yaml")
    write_yaml(folder / "run.yaml", {**recorded, "config": {**recorded["config"], "val_every": 1}})
    lists = ("splits/train_labeled.txt", "splits/val.txt")
    for file in ("weights/baseline.pt", *lists):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    write_yaml(folder / "splits" / "data.yaml", {"names": {0: "dark"}})
    config = configure({**given, "baseline": str(folder), "val_every": 1})
    for missing in ("weights/pretrained_student.pt", "splits/train_unlabeled.txt"):
        with pytest.raises(UserError, match=rf"no finished baseline there \({missing} is missing\)"):
            check_baseline(folder, config)
        (folder / missing).write_text("seen" if missing.endswith("txt") else "", encoding="utf-8")
    training = check_baseline(folder, config)
    other = tmp_path / "other"
    shutil.copytree(folder / "splits", other / "splits")
    per_epoch = training.batches // training.epochs_done
    assert check_same_data(folder, other, per_epoch, config) == training
    (other / "splits" / "train_unlabeled.txt").write_text("others", encoding="utf-8")
    with pytest.raises(UserError, match="it differs in train_unlabeled"):
        check_same_data(folder, other, per_epoch, config)
    plain = configure({"student": "yolov8n.yaml", "baseline": str(folder), "val_every": 1})
    with pytest.raises(UserError, match=r"it differs in pretrain \(dense there\)"):
        check_baseline(folder, plain)
    other_way = configure({"pretrain": "regions", "student": "yolov8n.yaml", "baseline": str(folder), "val_every": 1})
    with pytest.raises(UserError, match=r"it differs in pretrain \(dense there\)"):
        check_baseline(folder, other_way)


def test_baseline_without_pretraining_is_the_one_from_scratch(tmp_path: Path) -> None:
    folder = create(tmp_path, student="yolov8n.yaml").path
    shutil.copyfile(EXAMPLES / "boxes.json", folder / "results.json")
    recorded = read_yaml(folder / "run.yaml")
    write_yaml(folder / "run.yaml", {**recorded, "config": {**recorded["config"], "val_every": 1}})
    for file in ("weights/baseline.pt", "splits/train_labeled.txt", "splits/val.txt"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(file, encoding="utf-8")
    write_yaml(folder / "splits" / "data.yaml", {"names": {0: "dark"}})
    given = {"student": "yolov8n.yaml", "baseline": str(folder), "val_every": 1}
    pretrained = configure({**given, "pretrain": "dense", "pretrain_batches": 10})
    other = tmp_path / "other"
    shutil.copytree(folder / "splits", other / "splits")  # it has seen no unlabeled image: their list does not matter
    training = check_baseline(folder, pretrained)
    per_epoch = training.batches // training.epochs_done
    taken = take_baseline(folder, other, per_epoch, pretrained)
    assert list(taken) == ["baseline_scratch"] and taken["baseline_scratch"].taken_from == folder.name
    assert [file.name for file in (other / "weights").iterdir()] == ["baseline_scratch.pt"]
    assert list(take_baseline(folder, other, per_epoch, configure(given))) == ["baseline"]
    with pytest.raises(UserError, match="it differs in student"):
        check_baseline(folder, configure({**given, "pretrain": "dense", "student": "yolov8s.yaml"}))


@pytest.mark.parametrize(("recipe", "example"), [("dfssd", "boxes"), ("mffmetal", "masks")])
def test_baseline_of_the_version_before_can_be_taken(tmp_path: Path, recipe: str, example: str) -> None:
    given = {"recipe": recipe, "student": "yolov8n.yaml" if recipe == "dfssd" else "mffmetal-6"}
    folder = create(tmp_path, **given).path
    shutil.copyfile(EXAMPLES / f"{example}.json", folder / "results.json")
    for file in ("weights/baseline.pt", "splits/train_labeled.txt", "splits/val.txt"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    write_yaml(folder / "splits" / "data.yaml", {"names": {0: "dark"}})
    recorded = read_yaml(folder / "run.yaml")
    assert recorded["config"].pop("val_every") == "auto", "then there was no such key, and every epoch was validated"
    write_yaml(folder / "run.yaml", recorded)
    with pytest.raises(UserError, match=r"it differs in val_every \(1 there\)"):
        check_baseline(folder, configure({**given, "baseline": str(folder)}))
    config = configure({**given, "baseline": str(folder), "val_every": 1})
    baseline = check_baseline(folder, config)
    assert baseline.val_score == baseline.val_score_by_epoch[(baseline.best_epoch or 0) - 1]
    shutil.copyfile(EXAMPLES / f"{'masks' if example == 'boxes' else 'boxes'}.json", folder / "results.json")
    with pytest.raises(UserError, match="no finished baseline there"):
        check_baseline(folder, config)
