"""The command ``check`` and :func:`dfssd.check`: from a line to table, files and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import dfssd
from dfssd.cli import main
from dfssd.datasets.account import Role
from tests.conftest import NAMES, write_images, write_squares

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """A folder in YOLO layout with twelve labeled images, and the current directory beside it."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set", 12, seed=1)
    (tmp_path / "set" / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    return tmp_path / "set"


def numbers(shown: str, line: str) -> list[str]:
    """What stands in the columns of a line of the table."""
    [found] = [text.split() for text in shown.splitlines() if text.strip().startswith(f"{line} ")]
    return found[1:]


@pytest.mark.parametrize("named", ["data=set", "set"])
def test_table_of_a_folder(folder: Path, capsys, named: str) -> None:
    assert main(["check", named]) == 0
    shown = capsys.readouterr()
    assert "set: 12 images, 2 classes (dark, bright)" in shown.out and not shown.err
    assert numbers(shown.out, "images") == ["10", "1", "1", "12"]
    assert numbers(shown.out, "boxes") == ["20", "2", "2", "24"]
    assert numbers(shown.out, "bright") == ["10", "1", "1", "12"]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["datasets", "set"]


def test_classes_without_names_are_told(folder: Path) -> None:
    """Also where a data set YAML has their number alone."""
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text("train: images\nnc: 2\n", encoding="utf-8")
    told = "there is no list of class names: the classes are called class_0, class_1; pass names=[a,b,c] in id order"
    for data in ("set", "set/data.yaml"):
        found = dfssd.check(data=data)
        assert found.names == ("class_0", "class_1") and told in found.warnings
    assert told not in dfssd.check(data="set", names=NAMES).warnings


def test_sum_of_the_files_is_exact(folder: Path, capsys) -> None:
    (folder / "notes.docx").write_bytes(b"PK")
    report = dfssd.check(data="set")
    assert report.counted == sum(report.files.values()) == sum(p.is_file() for p in folder.rglob("*")) == 26


def test_boxes_of_the_file_lie_on_the_squares(folder: Path) -> None:
    """``dark`` is gray 20, ``bright`` 235 (tests.conftest)."""
    assert main(["check", "data=set", "out=seen"]) == 0
    content = json.loads(Path("seen/data_report.json").read_text(encoding="utf-8"))
    assert content["names"] == NAMES and len(content["images"]) == 12 and content["schema"] == 1
    for image in content["images"]:
        assert Path(image["path"]).parent == folder / "images" and image["path"] == image["source"]
        pixels = cv2.imdecode(np.fromfile(image["path"], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (image["height"], image["width"])
        for name, *corners in image["boxes"]:
            x1, y1, x2, y2 = (round(value) for value in corners)
            inside = pixels[y1:y2, x1:x2].mean(2)
            if name == "bright":
                assert (inside == 235).all()
            else:  # which a bright one may cover
                assert ((inside == 20) | (inside == 235)).all() and (inside == 20).any()
    assert [image["split"] for image in content["images"]].count("train") == 10
    assert cv2.imread("seen/data.png") is not None


def test_split_is_that_of_a_run(folder: Path) -> None:
    from dfssd.config import parse_arguments
    from dfssd.detection.data import choose_split, copies_among, read_data
    from dfssd.runs.configure import configure

    words = ["data=set", "seed=5", "split_ratio=[0.5,0.25,0.25]", "labeled=0.5", "epochs=3"]
    config = configure(parse_arguments(words))
    data = read_data(config)
    split = choose_split(config, data, copies_among(config, data))
    report = dfssd.check(data="set", seed=5, split_ratio=[0.5, 0.25, 0.25], labeled=0.5)
    assert report.split == split
    assert len(report.hidden) == 3 and report.counts[Role.LABELED]["val"] == 3


def test_whole_training_line_is_taken_and_a_typo_is_not(folder: Path, capsys) -> None:
    line = "data=set teacher=gone.pt student=yolov8n.pt epochs=3 imgsz=320 device=7 hwjs.weight=2 name=a exist_ok=true"
    assert main(["check", *line.split()]) == 0
    assert not Path("runs").exists()
    capsys.readouterr()
    assert main(["check", *line.split(), "epoch=3", "hwjs.wieght=1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown key 'epoch'; did you mean 'epochs'?",
        "error: unknown key 'hwjs.wieght'; did you mean 'hwjs.weight'?",
    ]


def test_data_yaml_with_given_parts(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_squares(tmp_path, train=6, val=3, test=4, plain=5)
    assert main(["check", "data=data.yaml"]) == 0
    shown = capsys.readouterr().out
    assert numbers(shown, "labeled") == ["6", "3", "4", "13"] and numbers(shown, "unlabeled") == ["5", "-", "-", "5"]


def test_what_stops_only_the_split_is_told_after_the_table(folder: Path, capsys) -> None:
    assert main(["check", "data=set", "labeled=11", "out=seen"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "error: labeled=11 images, but train has 10; pass 1 to 10, or a share (0-1]\n"
    assert numbers(shown.out, "images") == ["12"]
    content = json.loads(Path("seen/data_report.json").read_text(encoding="utf-8"))
    assert content["problems"] == [shown.err.removeprefix("error: ").strip()]
    assert {image["split"] for image in content["images"]} == {None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data is missing: data=demo"),
        (["data=nowhere"], "data=nowhere does not exist"),
        (["data=set", "out=set/classes.txt"], "out=set/classes.txt is a file; give a folder"),
        (["data=set", "out=[a]"], "out=['a'] must be a folder"),
        (["data=set", "out=true"], "out=True must be a folder"),
        (["data=set", "out=set"], "out=set holds images of the data"),
        (["data=set", "out=set/images"], "out=set/images holds images of the data"),
        (["data=set", "unlabeled=more/images", "out=more/images"], "out=more/images holds images of the data"),
        (["data=set", "split=nowhere"], "split=nowhere: "),
        (["data=set", "data=set"], "data is given twice"),
        (["data=set", "set"], "'set' is not an argument"),
    ],
)
def test_mistakes_are_one_line(folder: Path, capsys, words: list[str], message: str) -> None:
    write_images(folder.parent / "more", 2, seed=2, labels=False)
    before = [sorted((folder.parent / name).rglob("*")) for name in ("set", "more")]
    assert main(["check", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert [sorted((folder.parent / name).rglob("*")) for name in ("set", "more")] == before


def test_report_inside_the_data_is_no_data_the_next_time(folder: Path, capsys) -> None:
    os.chdir(folder)
    counts = []
    for _ in range(2):
        report = dfssd.check(data=".", out="seen")
        counts.append((len(report.items), report.counted))
    assert counts[0] == counts[1] == (12, 25) and sorted(p.name for p in Path("seen").iterdir()) == [
        "data.png",
        "data_report.json",
    ]


def test_python_takes_sections_and_paths(folder: Path) -> None:
    report = dfssd.check(data=folder, out=Path("seen"), preprocess={"resize": 32}, pseudo={"mode": "online"})
    first = next(report.images())
    assert first.size == (32, 32) and first.path != first.source and first.source.parent == folder / "images"
    assert report.by_class["dark"].total() == 12 and not report.problems
    with pytest.raises(dfssd.UserError, match="did you mean 'epochs'"):
        dfssd.check(data=folder, epoch=3)


def test_training_does_not_take_out(capsys) -> None:
    assert main(["data=demo", "out=seen"]) == 2
    assert "unknown key 'out'" in capsys.readouterr().err


def test_interrupt_does_not_speak_of_a_run(folder: Path, monkeypatch, capsys) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dfssd.data_check.check_data", interrupted)
    assert main(["check", "data=set"]) == 130
    assert capsys.readouterr().err == "\ninterrupted; the same line begins anew:\n\n    dfssd check data=set\n"


@pytest.mark.train
@pytest.mark.parametrize(
    "line",
    [
        ["data=set", "out=seen", "epochs=3", "hwjs.weight=2", "recipe=tskd", "unlabeled=more"],
        ["data=demo", "recipe=mffmetal", "out=seen"],
    ],
)
def test_neither_torch_nor_ultralytics_is_imported(folder: Path, line: list[str]) -> None:
    write_images(folder.parent / "more", 3, seed=2, labels=False)
    code = (
        "import sys; from dfssd.__main__ import main; code = main()\n"
        "found = {name.partition('.')[0] for name in sys.modules} & {'torch', 'torchvision', 'ultralytics'}\n"
        "sys.exit(f'imported: {found}' if found else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", *line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "images" in done.stdout
