"""What is known of a data set: by hand, for a small one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.account import Account, Role
from dfssd.datasets.copies.twins import Leak
from dfssd.datasets.records import DetectionSet, Item, MaskItem, MaskSet
from dfssd.datasets.splits import Split
from dfssd.errors import UserError
from dfssd.inspection.report import inspect_data, pixels_path
from tests.inspection.material import boxes, dataset, report, write_image


def test_each_file_has_one_role_and_the_sum_is_exact(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert found.files == {
        Role.LABELED: 3,
        Role.DEFECT_FREE: 1,
        Role.UNLABELED: 2,
        Role.LABEL: 2,
        Role.CLASS_LIST: 1,
        Role.LEFT_OUT: 4,
    }
    assert sum(found.files.values()) == found.counted == 13
    assert not [text for text in found.warnings if "no role" in text]


@pytest.mark.parametrize("counted", [12, 14])
def test_a_wrong_sum_is_told(tmp_path: Path, counted: int) -> None:
    account = replace(dataset(tmp_path / "x").account, counted=counted)
    assert f"1 of {counted} files ha" in report(tmp_path, account=account).warnings[1]


def test_images_by_role_and_part(tmp_path: Path) -> None:
    counts = report(tmp_path).counts
    assert counts[Role.LABELED] == {"train": 1, "val": 1, "test": 1}
    assert counts[Role.DEFECT_FREE] == {"train": 1}
    assert counts[Role.UNLABELED] == {"train": 2}  # v and w are left out


def test_boxes_by_class_and_part_leave_out_what_only_measures_pseudo_labels(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert found.by_class == {"dark": {"train": 1, "test": 1}, "bright": {"train": 1, "val": 1, "test": 1}}
    assert {image.stem for image in found.hidden} == {"c"}
    assert found.warnings[-1] == "val has no dark: no score can be measured for it there"


def test_images_as_training_reads_them(tmp_path: Path) -> None:
    images = {image.path.stem: image for image in report(tmp_path).images()}
    assert list(images) == ["a", "b", "c", "copy", "u", "x"]
    a = images["a"]
    assert a.boxes == (("dark", 10.0, 10.0, 30.0, 30.0), ("bright", 55.0, 5.0, 65.0, 15.0))
    assert (a.size, a.role, a.part, a.hidden) == ((80, 40), Role.LABELED, "train", False)
    assert (images["c"].role, images["c"].boxes, images["c"].hidden) == (Role.DEFECT_FREE, (), True)
    assert (images["x"].role, images["x"].boxes, images["x"].part) == (Role.UNLABELED, (), "train")
    assert [images[name].part for name in ("b", "copy", "u")] == ["val", "test", "train"]
    assert a.path == a.source == tmp_path / "mine" / "a.png"


def test_left_out_files_and_images_with_their_reasons(tmp_path: Path) -> None:
    skipped = tmp_path / "mine" / "bad.png"
    found = report(tmp_path, skipped=((skipped, f"{skipped}: cannot be decoded"),))
    assert [(file.path.name, file.reason) for file in found.left_out] == [
        ("notes.docx", "is neither an image nor a label"),
        ("more.docx", "is neither an image nor a label"),
        ("bad.png", "cannot be decoded"),
        ("v.png", "is a copy of a labeled image, or of one in val or test"),
        ("w.png", "has no labels, but belongs to test"),
    ]
    assert {file.path.parent for file in found.left_out} == {tmp_path / "mine"}


def test_copies_and_leaks(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert [[image.stem for image in group] for group in found.copies] == [["a", "copy", "v"]]
    assert found.surplus == 2 and found.torn == found.copies
    [leak] = found.leaks["test"]
    assert leak.image.stem == "copy" and [twin.stem for twin in leak.twins] == ["a"]
    assert "val" not in found.leaks
    expected = (
        "1 of 1 test image has a copy in training (mine/copy.png = mine/a.png): test scores will be too optimistic"
    )
    assert expected in found.warnings


def test_copies_within_a_part_are_no_leak(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    a, b, _, copy, *_ = (item.image for item in data.items)
    found = inspect_data(data, Split((a, copy), (), (b,), ()), [0, 1, 2, 0, 4, 5, 6, 7])
    assert found.surplus == 1 and not found.torn and not found.leaks


def test_leaks_of_the_caller_count(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    a, b, *_ = (item.image for item in data.items)
    found = inspect_data(data, Split((a,), (), (b,), ()), range(8), leaks={"val": [Leak(b, (a,))], "test": []})
    assert list(found.leaks) == ["val"] and not found.torn


def test_without_a_split_there_are_no_parts(tmp_path: Path) -> None:
    found = inspect_data(dataset(tmp_path), None, range(8), problems=("too few images",))
    assert found.problems == ("too few images",)
    assert found.counts[Role.UNLABELED] == {None: 4} and found.by_class["dark"] == {None: 2}
    assert {image.part for image in found.images()} == {None}
    assert not found.leaks and found.warnings == ("label files of 2 images were empty",)


def test_images_beyond_limit_are_in_no_part(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    a, b, _, copy, *_ = (item.image for item in data.items)
    found = inspect_data(data, Split((a,), (), (b,), (copy,)), range(8))
    assert found.counts[Role.UNLABELED] == {None: 4} and found.counts[Role.LABELED]["train"] == 1


def test_file_of_the_user_is_named_only_if_training_reads_its_bytes(tmp_path: Path) -> None:
    image = write_image(tmp_path / "imported" / "a.png", seed=1)
    same = tmp_path / "same.png"
    same.write_bytes(image.read_bytes())  # imported to another disk
    other = write_image(tmp_path / "other.tif", seed=2)
    archive = tmp_path / "set.zip"
    archive.write_bytes(b"PK")
    assert pixels_path(Item(image, None, None, source=same)) == same
    assert pixels_path(Item(image, None, None, source=other)) == image
    assert pixels_path(Item(image, None, None, source=archive / "a.png")) == image
    assert pixels_path(Item(image, None, None, source=tmp_path / "gone.png")) == image
    assert pixels_path(Item(image, None, None)) == image


def test_size_that_was_not_recorded_is_measured_as_training_turns_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "turned.jpg"
    Image.new("RGB", (80, 40), "gray").save(turned, exif=exif)
    data = DetectionSet("one", ("dark",), (Item(turned, boxes((0, 0.5, 0.25, 0.5, 0.25)), None),))
    [image] = inspect_data(data, None, [0]).images()
    assert image.size == (40, 80) and image.boxes == (("dark", 10.0, 10.0, 30.0, 30.0),)


def test_image_that_is_gone_is_one_line(tmp_path: Path) -> None:
    data = DetectionSet("one", ("dark",), (Item(tmp_path / "gone.png", None, None),))
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        list(inspect_data(data, None, [0]).images())


def test_a_class_that_is_nowhere_is_not_said_to_be_missing_in_a_part(tmp_path: Path) -> None:
    found = report(tmp_path, names=("dark", "bright", "never"))
    assert not [text for text in found.warnings if "never" in text] and found.by_class["never"].total() == 0


def test_masks_count_images_and_name_pixels(tmp_path: Path) -> None:
    images = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    mask = tmp_path / "mask.png"
    Image.fromarray(np.zeros((40, 80), np.uint8)).save(mask)
    items = (
        MaskItem(images[0], mask, None, (3100, 100), size=(80, 40)),
        MaskItem(images[1], mask, None, (3200,), size=(80, 40)),
        MaskItem(images[2], None, None, size=(80, 40)),
    )
    data = MaskSet("plates", ("background", "pit"), items, account=Account(counted=3))
    found = inspect_data(data, Split((images[0],), (images[2],), (images[1],), ()), range(3))
    assert found.masks and found.by_class == {"pit": {"train": 1}}
    pit, plain, unlabeled = found.images()
    assert (pit.role, pit.pixels, pit.mask) == (Role.LABELED, {"background": 3100, "pit": 100}, mask)
    assert (plain.role, plain.pixels) == (Role.DEFECT_FREE, {"background": 3200})
    assert (unlabeled.role, unlabeled.pixels, unlabeled.mask) == (Role.UNLABELED, {}, None)
