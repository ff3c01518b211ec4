"""Nothing changes behind a run: what resume= and split= notice, what passes, and what is merely told."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfssd.datasets import data_state
from dfssd.datasets.account import Account, Accounted, Role
from dfssd.datasets.data_state import check_state, label_file, write_state
from dfssd.datasets.file_records import FILES, read_rows
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import DetectionSet, Item, MaskItem, MaskSet
from dfssd.datasets.split_files import read_split, write_split
from dfssd.datasets.splits import LISTS, Split
from dfssd.errors import UserError
from dfssd.files import file_digest
from tests.datasets.recorded_data import (
    LISTED,
    NAMES,
    NOT_LISTED,
    UNLABELED,
    Place,
    delete,
    recorded,
    rewrite,
    set_back,
    split_of,
    swap,
    touch,
)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return recorded(tmp_path)


REFUSED: dict[str, tuple[Callable[[Place], object], str]] = {
    "label edited": (
        lambda p: p.label(2).write_text("0 0.5 0.5 0.5 0.5\n"),
        "1 file changed .*: {source}/labels/2.txt;",
    ),
    "label of the same size, time set back": (
        lambda p: set_back(p.label(2), b"1 0.5 0.5 0.25 0.25\n"),
        "1 file changed .*: {source}/labels/2.txt;",
    ),
    "labels swapped": (swap, "2 files changed .*: {source}/labels/0.txt, {source}/labels/1.txt;"),
    "label deleted": (lambda p: p.label(2).unlink(), "1 file vanished .*: {source}/labels/2.txt;"),
    "class list edited": (
        lambda p: (p.source / "classes.txt").write_text("bright\ndark\n"),
        "1 file changed .*: {source}/classes.txt;",
    ),
    "image edited in place": (
        lambda p: p.image(0).write_bytes(b"brighter"),
        "1 file changed .*: {source}/images/0.png;",
    ),
    "image replaced": (lambda p: rewrite(p.image(0), b"brighter"), "1 file changed .*: {source}/images/0.png;"),
    "copied image replaced": (lambda p: rewrite(p.image(1), b"pixels 9"), "1 file changed .*: {source}/images/1.png;"),
    "unlabeled image deleted": (lambda p: p.image(5).unlink(), "1 file vanished .*: {source}/images/5.png;"),
    "image moved": (
        lambda p: p.image(3).rename(p.source / "labels" / "3.png"),
        r"1 file vanished .*: {source}/images/3.png \(now {source}/labels/3.png\);",
    ),
    "image renamed": (
        lambda p: p.image(3).rename(p.image(30)),
        r"1 file vanished .*: {source}/images/3.png \(now {source}/images/30.png\);",
    ),
    "image deleted, another one added": (
        lambda p: p.image(3).rename(p.image(30)).write_bytes(b"pixels 0"),
        "1 file vanished .*: {source}/images/3.png;",
    ),
    "source moved": (
        lambda p: p.source.rename(p.root / "elsewhere"),
        "17 files vanished .*: {source}/images/0.png, {source}/images/1.png, {source}/images/2.png and 14 more;",
    ),
    "import removed": (
        lambda p: shutil.rmtree(p.imported),
        "15 files vanished .*: {imported}/images/0.png, {imported}/labels/0.txt, {imported}/images/1.png and 12 more;",
    ),
    "imported label edited": (
        lambda p: (p.imported / "labels" / "2.txt").write_text(""),
        "1 file changed .*: {imported}/labels/2.txt;",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_changed_and_vanished_files_are_refused_by_name(place: Place, case: str) -> None:
    change, message = REFUSED[case]
    change(place)
    expected = message.format(source=place.source, imported=place.imported)
    with pytest.raises(UserError, match=rf"^resume=x: {expected} restore the data, or start a new run$"):
        check_state(place.splits, "resume=x")


def test_changes_and_losses_are_told_together(place: Place) -> None:
    place.label(0).write_text("")
    place.image(1).unlink()
    with pytest.raises(UserError) as caught:
        check_state(place.splits, "resume=x")
    assert [problem.split(" since")[0] for problem in caught.value.problems] == [
        "resume=x: 1 file changed",
        "resume=x: 1 file vanished",
    ]


PASSED: dict[str, Callable[[Place], object]] = {
    "nothing": lambda p: None,
    "touched": touch,
    "linked once more": lambda p: os.link(p.image(0), p.root / "link.png"),
    "written anew with the same content": lambda p: rewrite(p.label(0), p.label(0).read_bytes()),
    "image that the run does not use": lambda p: p.image(NOT_LISTED).write_bytes(b"other"),
    "file that was left out": lambda p: (p.source / "notes.png").write_text("still no image"),
    "hidden file": lambda p: (p.source / "images" / ".DS_Store").write_text(""),
    "file beside the class list alone": lambda p: (p.source / "more.txt").write_text(""),
    "file of another kind": lambda p: (p.source / "images" / "labels.cache").write_text(""),
    "run from before there was a record": lambda p: (p.splits / FILES).rename(p.label(0)),
}


@pytest.mark.parametrize("case", PASSED)
def test_what_is_the_same_passes(place: Place, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    PASSED[case](place)
    check_state(place.splits, "resume=x")
    assert not capsys.readouterr().out


def test_files_are_read_again_only_in_doubt(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(path: str) -> str:
        read.append(Path(path).name)
        return file_digest(path)

    monkeypatch.setattr(data_state, "file_digest", noted)
    check_state(place.splits, "resume=x")
    assert read == []
    os.utime(place.image(0))
    check_state(place.splits, "resume=x")
    assert read == ["0.png"], "the user's file and the imported one are the same"


def test_added_files_are_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.label(UNLABELED).write_text("0 0.5 0.5 0.5 0.5\n")
    (place.source / "images" / "9.png").write_bytes(b"new")
    check_state(place.splits, "resume=x")
    told = capsys.readouterr().out
    assert "warning: 2 files added to the data since the run was started, and not used by it: " in told
    assert f"{place.source}/images/9.png, {place.source}/labels/5.txt" in told


def test_record_has_one_row_for_each_file(place: Place) -> None:
    rows = list(read_rows(place.splits))
    images = {row.path: row for row in rows if row.role in LISTS}
    assert [row.role for row in images.values()] == [name for name in LISTS for _ in LISTED[name]]
    linked = images[str(place.imported / "images" / "0.png")]
    assert linked.source == str(place.image(0)) and linked.stamp.size == 8
    assert images[str(place.imported / "images" / "1.png")].source == ""
    assert [path for path, row in images.items() if not row.labels] == [str(place.imported / "images" / "5.png")]
    counted = {role: sum(row.role == role for row in rows) for role in {row.role for row in rows} - set(LISTS)}
    assert counted == {"import": 1, "label": 7, "source": 1 + 1 + 8, "unused": 2, "folder": 2}


def test_archive_is_one_file(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images/a.png", "pixels")
    images = [tmp_path / "data" / "images" / f"{name}.png" for name in "abcd"]
    images[0].parent.mkdir(parents=True)
    for image in images:
        image.write_bytes(image.name.encode())
    items = tuple(Item(image, None, None, source=archive / "images" / image.name) for image in images)
    account = Account((Accounted(archive / "labels" / "a.txt", Role.LABEL),))
    dataset = DetectionSet("set", NAMES, items, account=account)
    write_state(tmp_path, Split(*((image,) for image in images)), dataset)
    assert [row.path for row in read_rows(tmp_path) if row.role == "archive"] == [str(archive)]
    check_state(tmp_path, "resume=x")
    archive.write_bytes(b"another one")
    with pytest.raises(UserError, match=r"1 file changed .*: .*set\.zip;"):
        check_state(tmp_path, "resume=x")
    archive.unlink()
    with pytest.raises(UserError, match=r"1 file vanished .*: .*set\.zip;"):
        check_state(tmp_path, "resume=x")


def test_masks_are_compared_as_files(tmp_path: Path) -> None:
    items = []
    for number in range(4):
        image, mask = (tmp_path / part / f"{number}.png" for part in ("images", "masks"))
        for file in (image, mask):
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(f"{file.parent.name} {number}".encode())
        items.append(MaskItem(image, mask if number != 1 else None, None, (1, 1)))
    dataset = MaskSet("set", ("background", "dent"), tuple(items))
    split = Split(*((item.image,) for item in items))
    write_state(tmp_path / "splits", split, dataset)
    write_split(split, dataset, tmp_path / "splits", unit="pixels", first=1)
    check_state(tmp_path / "splits", "resume=x")
    read_split(tmp_path / "splits", dataset, 1)
    items[2].mask.write_bytes(b"masks 7")
    with pytest.raises(UserError, match=r"1 file changed .*: .*masks/2\.png;"):
        check_state(tmp_path / "splits", "resume=x")
    with pytest.raises(UserError, match=r"the labels of 1 image changed since the split was written: .*images/2\.png;"):
        read_split(tmp_path / "splits", dataset, 1)


def test_label_file_is_that_of_ultralytics(tmp_path: Path) -> None:
    from ultralytics.data.utils import img2label_paths

    image = tmp_path / "images" / "set" / "images" / "part" / "a.b.png"
    label = Path(img2label_paths([str(image)])[0])
    assert label_file(Item(image, None, None)) is None
    label.parent.mkdir(parents=True)
    label.touch()
    assert label_file(Item(image, None, None)) == label


# what happens to the data before its split is used again -> what is said
GIVEN: dict[str, tuple[Callable[[Place], object], str | None]] = {
    "nothing": (lambda p: None, None),
    "touched": (touch, None),
    "image that is not listed": (lambda p: p.image(NOT_LISTED).unlink(), None),
    "labels for an unlabeled image": (lambda p: p.label(UNLABELED).write_text("0 0.5 0.5 0.5 0.5\n"), None),
    "label in other words": (lambda p: p.label(0).write_text("0  0.50 0.5 0.250 0.25\r\n\n"), None),
    "label edited": (
        lambda p: p.label(4).write_text("0 0.5 0.5 0.5 0.5\n"),
        "the labels of 1 image changed since the split was written: {source}/images/4.png; restore them, or leave "
        "split= out to draw a new one",
    ),
    "labels swapped": (swap, "the labels of 2 images changed .*: {source}/images/0.png, {source}/images/1.png;"),
    "hidden labels deleted": (lambda p: p.label(4).unlink(), "the labels of 1 image changed .*/4.png;"),
    "image replaced": (
        lambda p: rewrite(p.image(5), b"brighter"),
        "1 image changed since the split was written: {source}/images/5.png;",
    ),
    "images deleted": (
        lambda p: delete(p.image(0), p.image(2)),
        "train_labeled.txt:1: .*/0.png is not in data set set, nor are 1 more; pass the same data=, unlabeled= again",
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_split_is_taken_for_the_data_that_it_was_written_for(place: Place, case: str) -> None:
    change, message = GIVEN[case]
    change(place)
    dataset = place.read()
    if message is None:
        assert read_split(place.splits, dataset).test == (place.imported / "images" / "7.png",)
        return
    with pytest.raises(UserError, match=message.format(source=place.source)):
        read_split(place.splits, dataset)


def test_moved_data_is_found_by_name_and_verified_by_content(place: Place) -> None:
    (place.root / "data").rename(place.root / "other")
    moved = place.root / "other" / "set-0123" / "images"
    items = []
    for image in sorted(moved.iterdir()):  # as on another machine: other files, times and links
        rewrite(image, image.read_bytes())
        label = label_file(Item(image, None, None))
        items.append(Item(image, read_label_file(label, 2) if label else None, None))
    dataset = DetectionSet("set", NAMES, tuple(items))
    assert read_split(place.splits, dataset).test == (moved / "7.png",)
    rewrite(moved / "7.png", b"pixels 8")
    with pytest.raises(UserError, match=r"1 image changed since the split was written: .*other/set-0123/images/7\.png"):
        read_split(place.splits, dataset)


def test_other_class_names_are_refused(place: Place) -> None:
    dataset = replace(place.read(), names=("bright", "dark"))
    with pytest.raises(UserError, match=r"split=.*: its classes are dark, bright, those of the data bright, dark;"):
        read_split(place.splits, dataset)


def test_data_imported_otherwise_is_not_compared(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.label(0).write_text("0 0.5 0.5 0.5 0.5\n")
    read_split(place.splits, place.read(), imported="preprocess.clahe=True")
    assert "here it is preprocess.clahe=True; images and labels are not compared" in capsys.readouterr().out


def test_a_split_without_record_is_taken_as_it_is(place: Place) -> None:
    (place.splits / FILES).unlink()
    place.label(0).write_text("0 0.5 0.5 0.5 0.5\n")
    assert len(read_split(place.splits, place.read()).train_labeled) == 4


def test_unreadable_file_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str | Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(data_state, "file_digest", denied)
    os.utime(place.image(0))
    with pytest.raises(UserError, match=r"images/0\.png cannot be read \(Permission denied\); restore it, or correct"):
        check_state(place.splits, "resume=x")
    with pytest.raises(UserError, match=r"0\.png cannot be read"):
        write_state(place.splits, split_of(dataset := place.read()), dataset)


def test_boxes_have_one_digest_in_every_form() -> None:
    boxes = np.array([[1, 0.5, 0.5, 0.25, 0.25]])
    a, b, none, empty = (
        data_state._labels_digest(Item(Path("a.png"), value, None))
        for value in (boxes.astype(np.float32), boxes, None, boxes[:0])
    )
    assert a == b != empty and none == "" != empty
