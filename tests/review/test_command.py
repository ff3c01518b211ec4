"""The command line: what is refused, in one line, and what is written nowhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dfssd.cli import main
from dfssd.files import read_yaml, write_yaml
from dfssd.results.record import FILE, MaskRecord, read_run
from dfssd.runs.ownership import Ownership
from tests.review import people


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The only error of a line that is refused."""
    capsys.readouterr()
    assert main(["review", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith("error: ")
    return shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "write dfssd review export or import"),
        (["exprt"], "write dfssd review export or import; did you mean 'export'?"),
        (
            ["export", "runs/x", "to=paint", "out=o"],
            "to=paint: must be one of: label-studio, cvat, coco",
        ),
        (["export", "runs/x", "to=coco"], "out is missing: folder to make"),
        (["export", "runs/x", "to=coco", "out=o"], "is no run: it has no run.yaml; give the folder of a run"),
        (["import", "x.json", "data=d", "out=o"], "x.json does not exist; give the file that"),
        (["import", "x.json", "dat=d", "data=d", "out=o"], "unknown key 'dat'; did you mean 'data'?"),
    ],
)
def test_wrong_lines(words: list[str], message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, *words)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return shutil.copytree(made, tmp_path / "run")


def test_a_run_of_another_kind(copied: Path, tmp_path: Path, capsys) -> None:
    out = f"out={tmp_path / 'out'}"
    record = read_run(copied)
    shutil.rmtree(copied / "pseudo")
    assert "has not finished; resume the run" in error_of(capsys, "export", str(copied), "to=coco", out)
    stages = tuple(s.model_copy(update={"status": "skipped"}) if s.name == "pseudo-label" else s for s in record.stages)
    record.model_copy(update={"stages": stages}).write(copied / FILE)
    assert "no teacher has looked at its unlabeled images" in error_of(capsys, "export", str(copied), "to=coco", out)
    record.model_copy(update={"stages": ()}).write(copied / FILE)
    assert "has not divided its data yet" in error_of(capsys, "export", str(copied), "to=coco", out)
    tree = read_yaml(copied / "run.yaml")
    write_yaml(copied / "run.yaml", {**tree, "config": {**tree["config"], "task": "semantic"}})
    MaskRecord(run=record.run).write(copied / FILE)
    assert "is a run with masks; a review is about boxes" in error_of(capsys, "export", str(copied), "to=coco", out)
    assert not (tmp_path / "out").exists()


def test_a_run_in_which_another_process_works(copied: Path, tmp_path: Path, capsys) -> None:
    with Ownership(copied):
        shown = error_of(capsys, "export", str(copied), "to=coco", f"out={tmp_path / 'out'}")
    assert "run is in use by process" in shown and not (tmp_path / "out").exists()


def test_a_run_without_a_student_yet(copied: Path, tmp_path: Path, capsys) -> None:
    (copied / "weights" / "student.pt").unlink()
    assert main(["review", "export", str(copied), "to=coco", f"out={tmp_path / 'out'}", "n=2"]) == 0
    shown = capsys.readouterr().out
    assert "there is no student yet" in shown and "by the student" not in shown


def test_the_student_is_asked_once(made: Path, tmp_path: Path, monkeypatch) -> None:
    from dfssd.pseudo_labels import teacher_inference

    assert main(["review", "export", str(made), "to=coco", f"out={tmp_path / 'a'}", "n=2"]) == 0
    monkeypatch.setattr(teacher_inference, "Inference", None)
    assert main(["review", "export", str(made), "to=coco", f"out={tmp_path / 'b'}", "n=2"]) == 0
    assert (tmp_path / "a" / "review.csv").read_bytes() == (tmp_path / "b" / "review.csv").read_bytes()


def test_a_draw_differs_from_the_order_by_value(made: Path, tmp_path: Path) -> None:
    for name, words in {"v": ["order=value"], "r": ["order=random"], "s": ["order=random", "seed=1"]}.items():
        assert main(["review", "export", str(made), "to=yolo", f"out={tmp_path / name}", "n=5", *words]) == 0
    chosen = {name: {path.name[5:] for path in (tmp_path / name / "images").iterdir()} for name in ("v", "r", "s")}
    assert len({frozenset(images) for images in chosen.values()}) == 3
    assert all(len(images) == 5 for images in chosen.values())


def test_nothing_is_overwritten(made: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x", encoding="utf-8")
    out = f"out={tmp_path / 'out'}"
    assert "exists and is not empty" in error_of(capsys, "export", str(made), "to=coco", out)
    assert main(["review", "export", str(made), "to=coco", f"out={tmp_path / 'review'}", "n=4"]) == 0
    file = people.coco(tmp_path / "review", tmp_path)
    assert "exists and is not empty" in error_of(capsys, "import", str(file), f"data={made}", out)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_export_that_nobody_has_touched_is_noticed(made: Path, tmp_path: Path, capsys) -> None:
    """It is taken, since only a person knows, but not in silence."""
    assert main(["review", "export", str(made), "to=cvat", f"out={tmp_path / 'review'}", "n=3"]) == 0
    file = tmp_path / "review" / "annotations.xml"
    assert main(["review", "import", str(file), f"data={made}", f"out={tmp_path / 'new'}"]) == 0
    shown = capsys.readouterr().out
    assert "no box was changed, added, or deleted: has a person looked" in shown
    assert " kept, 0 moved, 0 relabeled, 0 added, 0 deleted" in shown


def test_new_classes_come_behind_those_of_the_run(made: Path, tmp_path: Path, capsys) -> None:
    assert main(["review", "export", str(made), "to=cvat", f"out={tmp_path / 'review'}", "n=3", "conf=0.9"]) == 0
    file = tmp_path / "review" / "annotations.xml"
    file.write_text(file.read_text(encoding="utf-8").replace('"bright"', '"dent"', 1), encoding="utf-8")
    words = ["import", str(file), f"data={made}", f"out={tmp_path / 'new'}"]
    shown = main(["review", *words]), capsys.readouterr().err
    assert shown[0] == 2 and "class 'dent' is not among the names (dark, bright); add it to names=" in shown[1]
    assert "those of the run come first" in error_of(capsys, *words, "names=[dent,dark,bright]")
    assert main(["review", *words, "names=[dark,bright,dent]"]) == 0
    assert read_yaml(tmp_path / "new" / "data.yaml")["names"] == {0: "dark", 1: "bright", 2: "dent"}
