"""Data sets as people have them: each is read rightly, or refused in one line that says what decides."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import dfssd
from dfssd.datasets.copies.duplicates import find_copies
from dfssd.datasets.records import DetectionSet
from dfssd.detection.data import choose_split
from dfssd.errors import UserError
from tests.configured import DEFAULTS, load_dataset
from tests.field.builders import below, pairs, sound, write_tree
from tests.field.case import SOUND, Case, Refused, Taken
from tests.field.table import CASES
from tests.field.truth import false_boxes, false_labels, looks

SPLITS = ("train", "val", "test")


def load(case: Case, folder: Path, data_dir: Path, *, backwards: bool = False) -> DetectionSet:
    """Build the case in ``folder`` and load it."""
    write_tree(case.build(), folder, backwards=backwards)
    arguments = {
        key: value.replace("{d}", str(folder)) if isinstance(value, str) else value
        for key, value in case.arguments.items()
    }
    return load_dataset(str(folder / case.source), data_dir, **arguments)


def outcome(case: Case, folder: Path, data_dir: Path, *, backwards: bool = False) -> Any:
    """What comes of a case, without the names of folders: problems, or labels, splits, roles and warnings."""
    try:
        dataset = load(case, folder, data_dir, backwards=backwards)
    except UserError as e:
        return [problem.replace(str(folder), "") for problem in e.problems]

    def inside(path: Path | None) -> str:
        return str(path).replace(str(folder), "").replace(str(data_dir), "")

    items = [
        (inside(item.source or item.image), None if item.boxes is None else item.boxes.tolist(), item.split)
        for item in dataset.items
    ]
    files = [(inside(file.path), file.role, file.reason.replace(str(folder), "")) for file in dataset.account.files]
    warnings = [warning.replace(str(folder), "") for warning in dataset.account.warnings]
    return dataset.names, sorted(items), sorted(files), sorted(warnings)


def check(dataset: DetectionSet, expected: Taken) -> None:
    """Hold a data set against what is expected of its case."""
    assert dataset.names == expected.names
    known = [item for item in dataset.items if item.boxes is not None]
    splits = Counter(item.split if item.split in SPLITS else "loose" for item in known)
    assert {key: splits[key] for key in (*SPLITS, "loose")} == {
        key: getattr(expected, key) for key in (*SPLITS, "loose")
    }
    assert len(dataset.items) - len(known) == expected.unlabeled
    assert sum(not len(item.boxes) for item in known) == expected.defect_free
    kinds = expected.shown or looks(dataset.names)
    wrong = [line for item in known if len(item.boxes) for line in false_labels(item, kinds)]
    assert not wrong
    assert all(f"/{expected.below}/" in str(item.source or item.image) for item in known if expected.below)
    check_account(dataset, expected)


def check_account(dataset: DetectionSet, expected: Taken) -> None:
    """Each file has one role, and what should be said is said."""
    account = dataset.account
    assert account.counted == len(dataset.items) + len(account.files)
    assert len({file.path for file in account.files}) == len(account.files)
    assert not {file.path for file in account.files} & {item.source or item.image for item in dataset.items}
    assert all(bool(file.reason) == (file.role.value == "left out") for file in account.files)
    for words in expected.said:
        found = [line for line in account.warnings if all(word in line for word in words.split("|"))]
        assert found, (words, account.warnings)
    assert not any("\n" in line for line in account.warnings)
    if expected.quiet:
        assert account.warnings == ()
    reasons = {file.path.name: file.reason for file in account.left_out}
    for name, words in expected.left_out.items():
        assert words in reasons[name]
    roles = {role.value: number for role, number in account.roles().items()}
    assert expected.roles.items() <= roles.items()


@pytest.mark.parametrize("name", CASES)
def test_case(name, tmp_path) -> None:
    case = CASES[name]
    if isinstance(case.expected, Taken):
        check(load(case, tmp_path / "d", tmp_path / "sets"), case.expected)
        return
    with pytest.raises(UserError) as refusal:
        load(case, tmp_path / "d", tmp_path / "sets")
    [line] = refusal.value.problems
    assert "\n" not in line and str(tmp_path / "sets") not in line
    assert [word for word in case.expected.words if word not in line] == [], line


@pytest.fixture
def shuffled_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are listed in another order than the file system has."""
    scandir = os.scandir
    rng = random.Random(1)

    class Shuffled:
        def __init__(self, folder: Any = ".") -> None:
            with scandir(folder) as listing:
                self.entries = sorted(listing, key=lambda entry: entry.name if isinstance(entry.name, str) else "")
            rng.shuffle(self.entries)

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __next__(self) -> Any:
            if not self.entries:
                raise StopIteration
            return self.entries.pop()

        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            self.entries = []

    monkeypatch.setattr(os, "scandir", Shuffled)


ORDERED = [name for i, name in enumerate(CASES) if isinstance(CASES[name].expected, Refused) or i % 4 == 0]
"""Cases that are built twice: all refused ones, since a refusal names the first of several, and some of the others."""


@pytest.mark.parametrize("name", ORDERED)
def test_order_of_files_does_not_matter(name, tmp_path, shuffled_listing) -> None:
    case = CASES[name]
    one = outcome(case, tmp_path / "a" / "d", tmp_path / "sets")
    other = outcome(case, tmp_path / "b" / "d", tmp_path / "other sets", backwards=True)
    assert one == other


@pytest.mark.parametrize("name", ["voc_image_sets", "darknet_lists", "cvat_xml_subsets", "coco_official", "upper_case"])
def test_given_splits_are_those_of_the_run(name, tmp_path) -> None:
    """The four lists that a run trains on, validates on, and tests on."""
    dataset = load(CASES[name], tmp_path / "d", tmp_path / "sets")
    split = choose_split(DEFAULTS, dataset, find_copies([item.image for item in dataset.items]))
    given = {part: {item.image for item in dataset.items if item.split == part} for part in SPLITS}
    assert all(given.values())
    assert {"train": {*split.train_labeled}, "val": {*split.val}, "test": {*split.test}} == given


def test_copies_of_all_photos_among_the_unlabeled_train_nothing_twice(tmp_path) -> None:
    """Neither the labeled photos come back without labels, nor those of val and test."""
    dataset = load(CASES["unlabeled_names_all_photos"], tmp_path / "d", tmp_path / "sets")
    split = choose_split(DEFAULTS, dataset, find_copies([item.image for item in dataset.items]))
    source = {item.image: (item.source or item.image).name for item in dataset.items}
    assert sorted(source[image] for image in split.train_unlabeled) == ["up020.png", "up021.png"]
    assert len(split.left_out) == 8


def test_a_run_inside_the_data_changes_nothing(tmp_path, monkeypatch) -> None:
    """``data=.``, twice: imports and runs lie in the folder of the data the second time."""
    write_tree(sound(), tmp_path)
    monkeypatch.chdir(tmp_path)
    first = load_dataset(".", Path("datasets"), exclude=[Path("runs")])
    write_tree(below("runs/exp/student", pairs("train_batch{}.jpg", seeds=range(3))), tmp_path)
    write_tree(below("datasets/unfinished", pairs("images/{}.jpg", seeds=range(3))), tmp_path)
    second = load_dataset(".", Path("datasets"), exclude=[Path("runs")])
    assert [item.source for item in first.items] == [item.source for item in second.items]
    assert first.account.files == second.account.files and first.account.counted == second.account.counted == 17


def test_read_only_sources_are_not_written_to(tmp_path) -> None:
    write_tree(sound(), tmp_path / "d")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        check(load_dataset(str(tmp_path / "d"), tmp_path / "sets"), SOUND)
    finally:
        for path in before:
            path.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")} == before


@pytest.mark.parametrize("name", ["yolo_yaml", "voc_of_larger_images_scaled", "png_12_bit", "exif_voc", "zip_file"])
def test_the_report_of_check_tells_the_truth(name, tmp_path) -> None:
    """Boxes in pixels of ``path``, as any program decodes it; each file counted once."""
    case = CASES[name]
    write_tree(case.build(), tmp_path / "d")
    keys = {"data": str(tmp_path / "d" / case.source), "data_dir": str(tmp_path / "sets"), **case.arguments}
    dfssd.check(**keys, project=str(tmp_path / "runs"), out=str(tmp_path / "seen"))
    report = json.loads((tmp_path / "seen" / "data_report.json").read_text(encoding="utf-8"))
    labeled = [image for image in report["images"] if image["role"] == "labelled"]
    assert len(labeled) == 8 and len({image["source"] for image in report["images"]}) == len(report["images"])
    for image in labeled:
        pixels = cv2.imdecode(np.fromfile(image["path"], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (image["height"], image["width"])
        assert false_boxes([(box[0], tuple(box[1:])) for box in image["boxes"]], pixels.mean(axis=2)) == []
    counted = report["files"].pop("counted")
    assert counted == sum(report["files"].values())
    assert cv2.imread(str(tmp_path / "seen" / "data.png")) is not None
