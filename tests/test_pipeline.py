"""The whole recipe on tiny data: every file, reused splits, kills at any place, a teacher of another class order."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from ultralytics import RTDETR, YOLO
from ultralytics.nn.modules.head import RTDETRDecoder

import dfssd
from dfssd.cli import main
from dfssd.config import Config
from dfssd.deployment.folder import is_unchanged
from dfssd.deployment.networks import open_network
from dfssd.detection.run import DetectionRun
from dfssd.files import file_digest
from dfssd.pipeline import open_finished
from dfssd.results.sections import BoxExport
from dfssd.runs.beside import Beside
from dfssd.runs.handover import with_sizes
from dfssd.runs.ownership import Ownership
from dfssd.trainers.results_csv import read_results_csv
from tests.conftest import NAMES
from tests.disks import fill, mounted
from tests.key_reads import Reads, dead_keys, recorded_reads
from tests.processes import kill_when
from tests.tiny_detection import RTDETR_TINY, TINY

ARGUMENTS = [
    f"teacher={TINY}",
    f"student={TINY}",
    "teacher_epochs=1",
    "epochs=2",
    "imgsz=64",
    "batch=4",
    "device=cpu",
    "workers=0",
    "plots=false",
    "selftest_steps=1",
    "nbs=4",
    "pseudo.tau_low=0.000001",  # a teacher of a few steps is never sure of anything
    "pseudo.tau0=0.000001",
]


PARTS = ("config", "terms", "train", "given")
"""Keys of ``run.yaml`` that are the configuration, in the order of its fields."""


def arguments(squares: Path, tmp_path: Path, *more: str) -> list[str]:
    replaced = {word.partition("=")[0] for word in more}
    kept = [word for word in ARGUMENTS if word.partition("=")[0] not in replaced]
    return [f"data={squares}", f"project={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}", *kept, *more]


def config_of(run: Path) -> Config:
    recorded = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    return Config(*(recorded[key] for key in PARTS))


TRACK = ["track=tensorboard"] if find_spec("tensorboard") else []


READ: list[tuple[list[str], Reads]] = []
"""The line of the run of all stages, and the keys that it has read."""


@pytest.fixture(scope="module")
def finished(squares: Path, tmp_path_factory) -> tuple[Path, str]:
    """A run of all stages, and what it printed."""
    folder, output = tmp_path_factory.mktemp("finished"), io.StringIO()
    words = arguments(squares, folder, "name=all", *TRACK)
    with contextlib.redirect_stdout(output), recorded_reads() as reads:
        assert main(words) == 0
    READ[:] = [(words, reads)]
    return folder / "runs" / "all", output.getvalue()


@pytest.mark.train
@pytest.mark.usefixtures("finished")
def test_every_key_that_a_line_takes_is_read() -> None:
    [(words, reads)] = READ
    only_long = ("warmup_momentum",)  # optimizer=auto takes one with a momentum from 10,000 steps on
    assert dead_keys(words, reads, besides=only_long) == []


@pytest.mark.train
def test_every_file_and_section_is_there(finished: tuple[Path, str]) -> None:
    run, output = finished
    *_, report, student, log, following = output.splitlines()
    assert report.split() == ["report", str(run / "report.html")]
    assert student == f"student  {run / 'weights/student.pt'}, {run / 'weights/student.onnx'}"
    assert log.split() == ["log", str(run / "log.txt")]
    assert following == f"next     dfssd predict FOLDER_OF_PHOTOS model={run}"
    for name in (
        "run.yaml",
        "results.json",
        "report.md",
        "report.html",
        "splits/train_labeled.txt",
        "splits/data.yaml",
        "pseudo/predictions.json",
        "weights/teacher.pt",
        "weights/baseline.pt",
        "weights/student.pt",
        "weights/student.onnx",
        "weights/student.safetensors",
        "weights/student.yaml",
        "deploy/student.onnx",
        "deploy/infer.py",
        "deploy/manifest.json",
    ):
        assert (run / name).is_file(), name
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in results["stages"]] == [
        "prepare", "teacher", "self-train", "pseudo-label", "baseline", "student", "test", "export", "report"
    ]  # fmt: skip
    statuses = {s["name"]: s["status"] for s in results["stages"]}
    assert statuses.pop("self-train") == "skipped" and set(statuses.values()) == {"done"}
    handed_over = open_network(run, None)
    assert handed_over.names == dict(enumerate(NAMES)) and is_unchanged(run / "deploy" / "student.onnx")
    place = str(run.parent).encode()
    assert not [path for path in (run / "deploy").rglob("*") if path.is_file() and place in path.read_bytes()]
    for network in ("teacher", "baseline", "student"):
        assert set(results["test"][network]["per_class"]) == set(NAMES)
        assert 0 <= results["test"][network]["map50_95"] <= 1
    assert results["training"]["baseline"]["batches"] == results["training"]["student"]["batches"] == 8
    assert results["training"]["baseline"]["optimizer_steps"] == results["training"]["student"]["optimizer_steps"] > 0
    assert results["export"]["passed"] and results["export"]["max_box_diff_px"] < 0.5
    for term in ("cwd", "response_cls", "response_dfl"):
        assert {"first", "last", "grad_share"} <= set(results["distill"]["terms"][term])
    assert results["export"]["tensors"]["sha256"] == file_digest(run / "weights" / "student.safetensors")
    assert results["distill"]["selftest"]["teacher_unchanged"]
    assert results["pseudo_labels"]["images"] == 8
    recorded = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    assert recorded["config"]["teacher_epochs"] == 1 and recorded["train"]["epochs"] == 2
    assert not list(run.rglob("*.part*")) and not list(run.rglob("writing_*"))
    plain = YOLO(run / "weights" / "student.pt")
    assert plain.names == dict(enumerate(NAMES))


@pytest.mark.train
def test_finished_run_is_exported_again(finished: tuple[Path, str], tmp_path: Path, capsys) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    before = (run / "deploy" / "student.onnx").read_bytes()
    assert main(["export", str(run), "format=onnx,torchscript", "nms=true", "imgsz=96"]) == 0
    assert main(["export", str(run), "format=torchscript", "opset=17"]) == 2
    shown = capsys.readouterr()
    assert "opset=17 has no effect on format=torchscript" in shown.err
    assert "Ultralytics" not in shown.out and "Ultralytics" in (run / "log.txt").read_text(encoding="utf-8")
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines() if " fp32 " in line}
    assert set(rows) == {"PyTorch", "onnx", "torchscript"} and all(float(row[-1]) > 0 for row in rows.values())
    manifest = json.loads((run / "deploy" / "manifest.json").read_text(encoding="utf-8"))
    formats = {entry["file"]: entry for entry in manifest["formats"]}
    assert set(formats) == {"student.onnx", "student_nms_96px.onnx", "student_nms_96px.torchscript"}
    assert all(entry["passed"] and entry["median_ms"] > 0 for entry in formats.values())
    assert (run / "deploy" / "student.onnx").read_bytes() == before
    assert {entry["file"] for entry in manifest["files"]} >= set(formats)
    opened = dfssd.open_run(run)
    with pytest.raises(dfssd.UserError, match="opset=17 has no effect on format=torchscript"):
        opened.export("torchscript", opset=17)
    done = opened.export(["torchscript"], nms=True, imgsz=96)
    assert done.passed and done.imgsz == 96 and [one.format for one in done.formats] == ["torch", "torchscript"]
    export = dfssd.open_run(run).results.export
    assert export is not None and opened.results.export is not None and len(opened.results.export.later) == 1
    first, second = export.later
    assert [one.format for one in first.formats] == ["torch", "onnx"] and second == done, "one file, one entry"
    boxes = sum(row.defects for row in export.torch_sizes)
    assert boxes == opened.results.test["student"].instances > 0
    assert all(sum(row.defects for row in one.sizes) == boxes for group in export.later for one in group.formats)
    report = (run / "report.md").read_text(encoding="utf-8")
    assert report.count("| `deploy/student_nms_96px.torchscript` | fp32 |") == 1
    assert not (run / "test" / "export").exists()


@pytest.mark.train
def test_only_a_finished_run_is_exported_and_by_one_process_at_a_time(finished, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    with Ownership(run):
        assert main(["export", str(run), "format=torchscript"]) == 2
    assert f"run is in use by process {os.getpid()}" in capsys.readouterr().err
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))
    record["stages"] = [stage for stage in record["stages"] if stage["name"] != "report"]
    (run / "results.json").write_text(json.dumps(record), encoding="utf-8")
    assert main(["export", str(run), "format=torchscript"]) == 2
    assert "the run is not finished, or still going on; resume=" in capsys.readouterr().err


@pytest.mark.train
@pytest.mark.skipif(not TRACK, reason="tensorboard is not installed: pip install 'dfssd[tracking]'")
def test_run_is_kept_in_tensorboard(finished: tuple[Path, str]) -> None:
    from tests.tracking.test_tensorboard import events, text

    run, output = finished
    results, read = json.loads((run / "results.json").read_text(encoding="utf-8")), events(run / "tensorboard")
    assert output.count("track=tensorboard: ") == 1
    for network, training in results["training"].items():
        scores = read.Scalars(f"{network}/val/mAP50-95")
        assert [point.value for point in scores] == pytest.approx(
            [score for score in training["val_score_by_epoch"] if score is not None], abs=1e-5
        )
        assert scores[-1].step == training["optimizer_steps"] > 0
    values = set(read.Tags()["scalars"])
    assert {f"student/{name}" for name in ("train/cwd", "weight/cwd", "lr/pg0", "train/u_box_loss", "epoch")} <= values
    (first, *_) = results["distill"]["health"]
    assert read.Scalars("student/pseudo/accepted")[0].value == pytest.approx(first["accepted"])
    assert not [name for name in values if name.startswith("student/val/u_")], "a loss that is not validated"
    assert read.Scalars("test/student/map50_95")[0].value == pytest.approx(results["test"]["student"]["map50_95"])
    assert text(read, "verdict") in output and "report.html" in text(read, "files")


@pytest.mark.train
def test_export_by_a_process_of_its_own_is_the_same(finished: tuple[Path, str], tmp_path: Path) -> None:
    """As it is started beside the test where there is a GPU; and a process that fails is noticed."""
    run = shutil.copytree(finished[0], tmp_path / "run")
    recorded = json.loads((run / "results.json").read_text(encoding="utf-8"))["export"]
    (run / "weights" / "student.onnx").unlink()
    config = config_of(run)
    beside = Beside(run, config, "export")
    try:
        section = beside.result()
    finally:
        beside.close()
    assert section is not None and (run / "weights" / "student.onnx").is_file()
    found = json.loads(BoxExport.model_validate(section).model_dump_json(exclude_unset=True))
    for timed in ("torch_ms", "onnx_ms"):
        assert found.pop(timed).keys() == recorded.pop(timed).keys()
    record, added_afterwards = dfssd.open_run(run).results, {"torch_sizes", "onnx_sizes", "tensors"}
    assert recorded.keys() - found.keys() == added_afterwards
    comparison = open_finished(run).comparison()
    now = {**with_sizes(found, record, comparison, 64), "tensors": recorded["tensors"]}
    assert json.loads(BoxExport.model_validate(now).model_dump_json(exclude_unset=True)) == recorded
    assert not (run / "test" / "export").exists()
    assert not (run / ".export.json").exists()
    (run / "weights" / "student.pt").write_bytes(b"cut")
    broken = Beside(run, config, "export")
    assert broken.result() is None
    broken.close()


@pytest.mark.train
def test_process_beside_ends_with_its_parent(finished: tuple[Path, str], tmp_path: Path) -> None:
    """Its input is closed by the operating system, however the parent ended."""
    run = shutil.copytree(finished[0], tmp_path / "run")
    config = config_of(run)
    beside = Beside(run, config, "export")
    assert beside.process.stdin is not None
    beside.process.stdin.close()
    assert beside.process.wait(timeout=60) == 1
    assert not (run / ".export.json").exists()


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_second_run_takes_split_and_teacher(squares: Path, tmp_path: Path, finished, teacher_file: Path) -> None:
    """The split of another run, and a teacher whose classes are in another order."""
    swapped = YOLO(teacher_file)
    swapped.model.names = dict(enumerate(reversed(NAMES)))
    swapped.save(tmp_path / "swapped.pt")
    first, _ = finished
    words = [f"teacher={tmp_path / 'swapped.pt'}", f"split={first / 'splits'}", "epochs=1", "baseline=off"]
    assert main(arguments(squares, tmp_path, "name=a", *words)) == 0
    run = tmp_path / "runs" / "a"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert {s["name"]: s["status"] for s in results["stages"]}["teacher"] == "reused"
    assert {s["name"]: s["status"] for s in results["stages"]}["baseline"] == "skipped"
    assert YOLO(run / "weights" / "teacher.pt").names == dict(enumerate(NAMES))
    for part in ("train_labeled", "train_unlabeled", "val", "test"):
        lists = [(folder / "splits" / f"{part}.txt").read_text(encoding="utf-8") for folder in (first, run)]
        names = [[Path(line).name for line in text.splitlines()] for text in lists]
        assert names[0] == names[1] != [], "imported to two folders"


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_a_labeler_of_another_family_that_ultralytics_trained(squares: Path, tmp_path: Path, finished) -> None:
    """As the guide has it: RT-DETR learns from the lists of a run, and labels beside the teacher in the next one."""
    first, _ = finished
    RTDETR(RTDETR_TINY).train(
        data=str(first / "splits" / "data.yaml"), epochs=1, imgsz=64, batch=4, device="cpu", workers=0, plots=False,
        project=str(tmp_path), name="rtdetr",
    )  # fmt: skip
    trained = tmp_path / "rtdetr" / "weights" / "best.pt"
    words = [f"teacher={first / 'weights' / 'teacher.pt'}", f"split={first / 'splits'}", "epochs=1", "baseline=off"]
    words += ["pseudo=both"]
    assert main(arguments(squares, tmp_path, "name=both", *words, f"pseudo.teachers={trained}")) == 0
    run = tmp_path / "runs" / "both"
    section = json.loads((run / "results.json").read_text(encoding="utf-8"))["pseudo_labels"]
    assert section["settings"]["teachers"] == 2 and section["accepted"] > 0
    labeler = RTDETR(run / "weights" / "extra_teacher1.pt")
    assert labeler.names == dict(enumerate(NAMES)) and type(labeler.model.model[-1]) is RTDETRDecoder


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_no_unlabeled_images_works_and_is_reported(squares: Path, tmp_path: Path, teacher_file: Path, capsys) -> None:
    tree = yaml.safe_load(squares.read_text(encoding="utf-8"))
    tree.pop("unlabeled")
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump(tree), encoding="utf-8")
    words = ("name=alone", "epochs=1", "baseline=off", f"teacher={teacher_file}")
    assert main(arguments(alone, tmp_path, *words)) == 0
    assert "no unlabeled images" in capsys.readouterr().out
    results = json.loads((tmp_path / "runs" / "alone" / "results.json").read_text(encoding="utf-8"))
    assert results["pseudo_labels"] is None
    assert results["distill"]["terms"]["cwd"]["last"] > 0


@pytest.mark.train
def test_run_killed_in_five_places_finishes_with_the_same_budget(squares: Path, tmp_path: Path) -> None:
    words = arguments(squares, tmp_path, "name=killed", "epochs=3")
    run = tmp_path / "runs" / "killed"
    markers = (
        run / "splits" / "train_unlabeled.txt",  # prepare not finished
        run / "train" / "teacher" / "weights" / "last.pt",
        run / "pseudo" / "predictions.json",  # written, not recorded
        run / "train" / "student" / "weights" / "last.pt",
        run / "weights" / "student.pt",  # test or export not finished
    )
    kill_when(words, run, markers)
    assert main([*words, f"resume={run}"]) == 0
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in results["stages"]].count("teacher") == 1
    training = results["training"]
    assert training["student"]["batches"] == training["baseline"]["batches"] == 12
    assert training["student"]["optimizer_steps"] == training["baseline"]["optimizer_steps"]
    assert training["student"]["epochs_done"] == 3
    assert len(results["run"]["resumed"]) == 5


@pytest.mark.train
def test_stage_done_again_takes_the_later_ones_with_it(squares: Path, tmp_path: Path, teacher_file: Path) -> None:
    words = arguments(squares, tmp_path, "name=again", "epochs=1", "baseline=off", f"teacher={teacher_file}")
    assert main([*words, "parity.box_px=0"]) == 2, "no two programs agree to the last bit"
    run = tmp_path / "runs" / "again"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert {s["name"]: s["status"] for s in results["stages"]}["export"] == "failed"
    (run / "report.md").write_text("old", encoding="utf-8")
    assert main([f"resume={run}"]) == 2
    assert (run / "report.md").read_text(encoding="utf-8") != "old"


def test_split_and_label_share_contradict(squares: Path, tmp_path: Path, capsys) -> None:
    assert main(arguments(squares, tmp_path, f"split={tmp_path}", "labeled=0.5")) == 2
    assert "leave out labeled" in capsys.readouterr().err


@pytest.mark.train
@pytest.mark.parametrize("skip_bad", [False, True])
def test_image_that_breaks_before_the_test_stops_it_or_is_not_counted(finished, tmp_path: Path, skip_bad: bool) -> None:
    run = open_finished(shutil.copytree(finished[0], tmp_path / "run"))
    assert isinstance(run, DetectionRun)
    run.inputs.skip_bad = skip_bad
    record, image = run.record, run.inputs.listed("test")[1]
    record.stages = tuple(stage for stage in record.stages if stage.name not in {"test", "export", "report"})
    assert record.data and record.data.test == 4
    record.data = record.data.model_copy(update={"lists_read": ("train_labeled", "train_unlabeled", "val")})
    before = image.read_bytes()
    image.write_bytes(before[: len(before) // 2])
    try:
        if skip_bad:
            assert run.inputs.watch("test", run.test) == "done"
            assert record.data.test == 3 and {scores.images for scores in record.test.values()} == {3}
        else:
            with pytest.raises(
                dfssd.UserError, match=f"1 file of the data changed since the run was started: {image};"
            ):
                run.inputs.watch("test", run.test)
    finally:
        image.write_bytes(before)


def started_again(run: Path, first: str) -> Path:
    """A copy of a finished run in which the stage ``first`` and those after it are to be done."""
    record = json.loads((run / "results.json").read_text(encoding="utf-8"))
    names = [stage["name"] for stage in record["stages"]]
    record["stages"] = record["stages"][: names.index(first)]
    (run / "results.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(run / "train" / first, ignore_errors=True)
    return run


@pytest.mark.train
@pytest.mark.parametrize(
    ("first", "fault"),
    [("student", "full"), ("test", "full"), ("export", "full"), ("report", "full"), ("report", "read-only")],
)
def test_disk_that_fills_up_or_becomes_read_only_stops_the_run_in_one_line(
    finished: tuple[Path, str], small_disk: Path, first: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = started_again(shutil.copytree(finished[0], small_disk / "run"), first)
    if fault == "full":
        ballast = fill(small_disk, 20 << 10)  # enough for the start
    else:
        assert mounted(small_disk, "-o", "remount,ro")
    capsys.readouterr()
    assert main([f"resume={run}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and ("disk" in line or "space" in line or "read or written" in line), line
    assert "cannot write format" not in line
    if fault == "full":
        ballast.unlink()
    else:
        assert mounted(small_disk, "-o", "remount,rw")
    if first in {"test", "report"}:
        assert main([f"resume={run}"]) == 0
        assert (run / "report.html").is_file() and not list(run.rglob("*.part*"))


@pytest.mark.train
def test_terminal_shows_the_run_and_the_log_file_everything(finished: tuple[Path, str]) -> None:
    run, output = finished
    log = (run / "log.txt").read_text(encoding="utf-8")
    lines = output.splitlines()
    assert not re.search(r"[\r\x1b]", output) and len(lines) < 80
    assert not any(word in output for word in ("layers", "engine/trainer", "GPU_mem", "optimizer:"))
    for line in ("plan:", "stage 2/8 teacher", "stage 8/8 report", "baseline: done in", "  teacher "):
        assert any(shown.startswith(line) for shown in lines), line
    assert lines.index("stage 1 prepare") < lines.index("plan:") < lines.index("stage 2/8 teacher")
    assert sum(line.startswith("student: epoch ") for line in lines) == 2
    assert "engine/trainer: " in log and "GPU_mem" in log and "[dfssd] stage 8/8 report" in log
    assert "writing_" not in log and ".part" not in log
    heading = next(line for line in log.splitlines() if line.split()[-2:] == ["response_", "response_"])
    assert len(heading) < 11 * 20


@pytest.mark.train
def test_columns_of_a_student_are_what_was_measured(finished: tuple[Path, str]) -> None:
    rows = read_results_csv(finished[0] / "train" / "student" / "results.csv")
    validated = [name for name in rows[0] if name.startswith("val/")]
    assert validated == ["val/box_loss", "val/cls_loss", "val/dfl_loss"]
    assert {"train/u_box_loss", "train/response_cls"} <= set(rows[0])


@pytest.mark.train
def test_resume_refuses_another_line(squares: Path, finished, capsys) -> None:
    run, _ = finished
    words = arguments(squares, run.parents[1], "name=all")
    changed = [w for w in words if not w.startswith("epochs=")]
    assert main([*changed, "epochs=5", f"resume={run}"]) == 2
    assert "epochs=5, but the run was started with epochs=2" in capsys.readouterr().err
    assert main([f"resume={run}"]) == 0
    assert capsys.readouterr().out.count("earlier, kept") == 9
