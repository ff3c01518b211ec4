"""Every way in which a run or another command loads a file that torch has pickled leads through one door."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics.data.utils import load_dataset_cache_file
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import strip_optimizer

from dfssd.cli import main
from dfssd.errors import UserError
from dfssd.process import SAFE_LOAD, trust_files
from dfssd.trust.checkpoints import load, load_checkpoint, open_yolo
from tests.source_tree import sources
from tests.test_pipeline import arguments
from tests.tiny_detection import TINY, save_detector
from tests.trust.payloads import Program, code, infect, write_label_cache

CACHED = "a label cache was read"
"""The file that the label caches of the data would write."""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "a program was run"


LOADERS: dict[str, Callable[[Path], object]] = {
    "ours": load,
    "a network": load_checkpoint,
    "Ultralytics' interface": open_yolo,
    "Ultralytics' loader": tasks.load_checkpoint,
}


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_refuses_a_program_and_loads_a_network(name: str, tmp_path: Path, marker: Path) -> None:
    file = save_detector(tmp_path / "x.pt")
    LOADERS[name](file)
    infect(file, marker)
    with pytest.raises(UserError, match=r"x\.pt: is not loaded.*builtins\.eval.*trust=true"):
        LOADERS[name](file)
    assert not marker.exists()
    trust_files(True)
    LOADERS[name](file)
    assert marker.exists()


def test_ultralytics_does_not_rewrite_a_file_with_a_program(tmp_path: Path, marker: Path) -> None:
    file = infect(save_detector(tmp_path / "x.pt"), marker)
    before = file.read_bytes()
    assert strip_optimizer(file) == {} and file.read_bytes() == before and not marker.exists()


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (lambda file, content: file.write_bytes(pickle.dumps(content)), "torch before 1.6"),
        (lambda file, content: torch.save(content, file, pickle_protocol=4), "Unsupported operand"),
        (
            lambda file, content: torch.save(content, file, _use_new_zipfile_serialization=False),
            "torch before 1.6",
        ),
    ],
)
def test_formats_that_cannot_be_looked_through_are_refused(write, why: str, tmp_path: Path, marker: Path) -> None:
    write(tmp_path / "x.pt", {"model": Program(marker)})
    with pytest.raises(UserError, match=why):
        load(tmp_path / "x.pt")
    assert not marker.exists()


def test_what_is_damaged_is_no_refusal(tmp_path: Path) -> None:
    save_detector(tmp_path / "x.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("no network")
    for name in ("cut.pt", "text.pt", "missing.pt"):
        with pytest.raises(Exception, match=r".") as found:
            load(tmp_path / name)
        assert "trust=true" not in str(found.value) and not isinstance(found.value, UserError)


def test_what_is_allowed_for_one_file_is_not_for_the_next(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    load(save_detector(tmp_path / "x.pt"))
    assert set(torch.serialization.get_safe_globals()) == before


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The line that a command ends with."""
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.count("error: ") == len(errors.splitlines()) == 1
    return errors


@pytest.mark.parametrize("key", ["teacher", "student", "pseudo.teachers"])
def test_networks_of_a_line(key: str, squares: Path, tmp_path: Path, marker: Path, capsys) -> None:
    evil = infect(save_detector(tmp_path / "evil.pt"), marker)
    line = refused(capsys, arguments(squares, tmp_path, f"{key}={evil}", "pseudo=both"))
    assert f"{key}={evil}: is not loaded" in line and "trust=true" in line
    assert not marker.exists() and not (tmp_path / "runs").exists()


def test_a_line_that_trusts_its_files_loads_them(squares: Path, tmp_path: Path, marker: Path, capsys) -> None:
    evil = infect(save_detector(tmp_path / "evil.pt"), marker)
    line = refused(capsys, arguments(squares, tmp_path, f"student={evil}", "trust=true", "teacher=missing.pt"))
    assert "missing.pt: no such file" in line and marker.exists()


@pytest.mark.parametrize("words", [["predict", "{images}", "model={evil}", "out={out}"], ["serve", "{evil}", "port=0"]])
def test_networks_of_other_commands(words: list[str], squares: Path, tmp_path: Path, marker: Path, capsys) -> None:
    evil = infect(save_detector(tmp_path / "evil.pt"), marker)
    places = {"images": squares.parent / "test" / "images", "evil": evil, "out": tmp_path / "out"}
    line = refused(capsys, [word.format(**places) for word in words])
    assert f"model={evil}: is not loaded" in line and not marker.exists()


def test_a_network_may_be_described_but_not_programmed(squares: Path, tmp_path: Path, marker: Path, capsys) -> None:
    text = Path(TINY).read_text(encoding="utf-8")
    for name, more in (("activation", f'\nactivation: "{code(marker)}"\n'), ("good", "\nactivation: nn.ReLU()\n")):
        (tmp_path / f"yolov8n-{name}.yaml").write_text(text + more, encoding="utf-8")
    evil, good = (tmp_path / f"yolov8n-{name}.yaml" for name in ("activation", "good"))
    for key in ("teacher", "student"):
        line = refused(capsys, arguments(squares, tmp_path, f"{key}={evil}"))
        assert f"{key}={evil}: activation: " in line and "trust=true" in line and not marker.exists()
    line = refused(capsys, arguments(squares, tmp_path, f"student={good}", "teacher=missing.pt"))
    assert "missing.pt: no such file" in line


def test_only_the_door_loads() -> None:
    """No module of ours uses torch's or Ultralytics' loaders by itself."""
    loaders = {"load_checkpoint", "torch_load", "torch_safe_load", "attempt_load_one_weight", "YOLO", "RTDETR"}
    for file in sources():
        if "trust" in file.parts:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ultralytics"):
                assert not loaders & {name.name for name in node.names}, file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = f"{node.value.id}.{node.attr}"
                if (file.name, used) == ("crew.py", "pickle.loads"):  # what the first process of a run hands out
                    continue
                assert used not in {"torch.load", "pickle.load", "pickle.loads", "joblib.load"}, file


@pytest.fixture(scope="module")
def finished(squares: Path, tmp_path_factory) -> Path:
    """A run with a baseline and a student, without its exports, on data with label caches that would run programs."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(squares.parent, folder / "data set")
    text = squares.read_text(encoding="utf-8").replace(str(squares.parent), str(folder / "data set"))
    squares = folder / "data set" / "data.yaml"
    squares.write_text(text, encoding="utf-8")
    for part in ("train", "val", "test"):
        write_label_cache(folder / "data set" / part / "labels.cache", folder / CACHED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfssd.runs.stages.StagedRun.export", lambda run: "skipped")
        teacher = save_detector(folder / "teacher.pt", names=("dark", "bright"))
        words = arguments(squares, folder, "name=first", "epochs=1", f"teacher={teacher}", "teacher_epochs=auto")
        assert main(words) == 0
    return folder


@pytest.mark.train
@pytest.mark.parametrize("file", ["weights/student.pt", "weights/teacher.pt", "train/student/weights/last.pt"])
def test_a_run_from_elsewhere_that_goes_on(file: str, finished: Path, tmp_path: Path, marker: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "runs" / "first", run)
    infect(run / file, marker)
    record = run / "results.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"report"', '"other"'), encoding="utf-8")
    line = refused(capsys, [f"resume={run}"])
    assert f"{run / file}: is not loaded" in line and not marker.exists()


@pytest.mark.train
def test_a_baseline_from_elsewhere(finished: Path, squares: Path, tmp_path: Path, marker: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "runs" / "first", run)
    infect(run / "weights" / "baseline.pt", marker)
    words = arguments(squares, tmp_path, "epochs=1", f"teacher={finished / 'teacher.pt'}", "teacher_epochs=auto")
    line = refused(capsys, [*words, f"baseline={run}"])
    assert "weights/baseline.pt: is not loaded" in line and not marker.exists()


@pytest.mark.train
@pytest.mark.parametrize("command", [["export", "{run}"], ["review", "export", "{run}", "to=coco", "out={out}"]])
def test_a_student_from_elsewhere(command: list[str], finished: Path, tmp_path: Path, marker: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "runs" / "first", run)
    infect(run / "weights" / "student.pt", marker)
    main([word.format(run=run, out=tmp_path / "out") for word in command])
    shown = capsys.readouterr()
    assert "student.pt: is not loaded" in shown.err + shown.out and not marker.exists()


@pytest.mark.train
def test_data_description_of_a_run_from_elsewhere(finished: Path, tmp_path: Path, marker: Path, capsys) -> None:
    """Ultralytics runs what ``download:`` says where images are missing."""
    run = tmp_path / "run"
    shutil.copytree(finished / "runs" / "first", run)
    with open(run / "splits" / "data.yaml", "a", encoding="utf-8") as file:
        file.write(f'path: {tmp_path / "nowhere"}\ndownload: "{code(marker)}"\n')
    for words in ([f"resume={run}"], ["export", str(run)]):
        assert "data.yaml: download: would be run" in refused(capsys, words)
    assert not marker.exists()


@pytest.mark.train
def test_label_caches_are_neither_read_nor_written(finished: Path) -> None:
    assert not (finished / CACHED).exists()
    caches = {str(file.relative_to(finished)): file.read_bytes() for file in finished.rglob("*.cache")}
    assert sorted(caches) == [f"data set/{part}/labels.cache" for part in ("test", "train", "val")]
    assert all(CACHED.encode() in content for content in caches.values()), "left as they were"


def test_a_label_cache_of_the_tests_would_run_a_program(tmp_path: Path, marker: Path) -> None:
    write_label_cache(tmp_path / "labels.cache", marker)
    load_dataset_cache_file(tmp_path / "labels.cache")
    assert marker.exists()


def test_what_trusts_is_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    trust_files(True)
    assert os.environ[SAFE_LOAD] == "0" and not tasks.SAFE_LOAD
    trust_files(False)
    assert os.environ[SAFE_LOAD] == "1" and tasks.SAFE_LOAD
