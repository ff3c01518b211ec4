"""``data_report.json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dfssd.datasets.records import DetectionSet
from dfssd.errors import UserError
from dfssd.inspection.files import SCHEMA, write_report
from dfssd.inspection.report import DataReport, ReportedImage, inspect_data
from tests.inspection.material import report


def read(found: DataReport, path: Path) -> dict:
    write_report(found, path)
    return json.loads(path.read_text(encoding="utf-8"))


def test_fields(tmp_path: Path) -> None:
    content = read(report(tmp_path), tmp_path / "out" / "data_report.json")
    mine = tmp_path / "mine"
    images = content.pop("images")
    assert images[0] == {
        "path": str(mine / "a.png"),
        "source": str(mine / "a.png"),
        "role": "labelled",
        "split": "train",
        "width": 80,
        "height": 40,
        "boxes": [["dark", 10.0, 10.0, 30.0, 30.0], ["bright", 55.0, 5.0, 65.0, 15.0]],
    }
    assert [(Path(image["path"]).stem, image["role"], image["split"]) for image in images] == [
        ("a", "labelled", "train"),
        ("b", "labelled", "val"),
        ("c", "defect-free", "train"),
        ("copy", "labelled", "test"),
        ("u", "unlabelled", "train"),
        ("x", "unlabelled", "train"),
    ]
    assert [Path(image["path"]).stem for image in images if image.get("hidden")] == ["c"]
    warnings = content.pop("warnings")
    assert warnings[0] == "label files of 2 images were empty" and len(warnings) == 3
    assert content == {
        "schema": SCHEMA,
        "name": "mine",
        "task": "detect",
        "names": ["dark", "bright"],
        "problems": [],
        "files": {
            "counted": 13,
            "labelled": 3,
            "defect-free": 1,
            "unlabelled": 2,
            "label": 2,
            "class list": 1,
            "left out": 4,
        },
        "outside": {"hidden": 2},
        "left_out": [
            {"path": str(mine / "notes.docx"), "reason": "is neither an image nor a label"},
            {"path": str(mine / "more.docx"), "reason": "is neither an image nor a label"},
            {"path": str(mine / "v.png"), "reason": "is a copy of a labeled image, or of one in val or test"},
            {"path": str(mine / "w.png"), "reason": "has no labels, but belongs to test"},
        ],
        "copies": [{"images": [str(mine / f"{name}.png") for name in ("a", "copy", "v")], "torn": True}],
    }


def test_empty_lists_and_odd_names_are_valid_json(tmp_path: Path) -> None:
    data = DetectionSet('"größe"\n', ("a\\b", "缺陷"), ())
    content = read(inspect_data(data, None, []), tmp_path / "data_report.json")
    assert content["images"] == [] and content["copies"] == []
    assert content["name"] == '"größe"\n' and content["names"] == ["a\\b", "缺陷"]


def test_images_are_written_one_by_one(tmp_path: Path, monkeypatch) -> None:
    """While the first of a thousand images is made, nothing but the beginning is in memory or in the file."""
    path = tmp_path / "data_report.json"
    sizes: list[int] = []
    [first, *_] = report(tmp_path).images()

    def images(self: DataReport) -> Iterator[ReportedImage]:
        for i in range(1000):
            [part] = tmp_path.glob(".data_report.*")
            sizes.append(part.stat().st_size)
            yield replace(first, size=(i + 1, 1))

    monkeypatch.setattr(DataReport, "images", images)
    content = read(report(tmp_path / "again"), path)
    assert [image["width"] for image in content["images"]] == list(range(1, 1001))
    assert len(set(sizes)) > 5 and sizes[-1] > 0.9 * path.stat().st_size


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out" / "data_report.json"
    path.parent.mkdir()
    path.write_text("old", encoding="utf-8")
    found = report(tmp_path)
    last = replace(found.dataset.items[-1], size=None)
    last.image.unlink()
    broken = replace(found, dataset=replace(found.dataset, items=(*found.dataset.items[:-1], last)))
    with pytest.raises(UserError, match=r"x\.png: cannot be read"):
        write_report(broken, path)
    assert path.read_text(encoding="utf-8") == "old" and list(path.parent.iterdir()) == [path]


def test_folder_that_cannot_be_written_names_the_argument(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot write .*data_report\.json: .*choose another folder with out="):
        write_report(report(tmp_path), tmp_path / "file" / "data_report.json")
