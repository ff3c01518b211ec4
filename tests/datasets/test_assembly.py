import numpy as np
import pytest

from dfssd.datasets.sources import split_named, split_of
from dfssd.errors import UserError
from tests.datasets.material import CR7_NAMES, cr7, write_label, write_picture
from tests.datasets.reading import read_folder


def boxes_by_name(source):
    return {item.image.name: item.boxes for item in source.items}


def test_cr7_layout_pairs_names_with_spaces(tmp_path):
    source = read_folder(cr7(tmp_path), CR7_NAMES, None)
    assert len(source.items) == 14 and not source.problems
    np.testing.assert_allclose(boxes_by_name(source)["oil spots2.jpg"], [[2, 0.5, 0.5, 0.25, 0.5]])


def test_yolo_layout_with_split_folders_and_classes_file(tmp_path):
    for split in ("train", "valid", "test"):
        write_picture(tmp_path / "images" / split / "same.png", 0)
        write_label(tmp_path / "labels" / split / "same.txt", f"{len(split) % 2} 0.5 0.5 0.1 0.1")
    write_label(tmp_path / "labels" / "classes.txt", "pit", "dent", "")
    source = read_folder(tmp_path)
    assert source.names == ("pit", "dent")
    assert {item.split: int(item.boxes[0, 0]) for item in source.items} == {"train": 1, "val": 1, "test": 0}


def test_split_folders_may_be_outside_and_labels_beside_the_images(tmp_path):
    write_picture(tmp_path / "train" / "images" / "a.png", 0)
    write_label(tmp_path / "train" / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1")
    write_picture(tmp_path / "val2017" / "a.png", 0)
    write_label(tmp_path / "val2017" / "a.txt", "1 0.5 0.5 0.1 0.1")
    source = read_folder(tmp_path)
    assert source.names == ("class_0", "class_1")
    assert {item.split: int(item.boxes[0, 0]) for item in source.items} == {"train": 0, "val": 1}


def test_a_missing_label_is_unlabeled_and_an_empty_one_defect_free(tmp_path):
    for i, name in enumerate("abc"):
        write_picture(tmp_path / "images" / f"{name}.png", i)
    write_label(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1")
    write_label(tmp_path / "labels" / "b.txt", "")
    found = boxes_by_name(read_folder(tmp_path))
    assert found["b.png"].shape == (0, 5) and found["c.png"] is None
    background = np.zeros((0, 5), np.float32)
    assert boxes_by_name(read_folder(tmp_path, None, background))["c.png"].shape == (0, 5)


def test_a_folder_named_unlabeled_is_never_background(tmp_path):
    write_picture(tmp_path / "images" / "train" / "a.png", 0)
    write_label(tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 0.1 0.1")
    write_picture(tmp_path / "images" / "unlabeled" / "b.png", 1)
    source = read_folder(tmp_path, None, np.zeros((0, 5), np.float32))
    assert [(i.split, i.boxes is None) for i in source.items] == [("train", False), ("unlabeled", True)]


def test_problems_name_file_and_line_and_do_not_stop_the_reading(tmp_path):
    root = cr7(tmp_path)
    write_label(root / "lengzha" / "label" / "pits1.txt", "3 0.5 0.5 0.1 0.1", "9 0.5 0.5 0.1 0.1")
    (root / "lengzha" / "image" / "dents1.jpg").write_bytes(b"\xff\xd8\xff broken")
    source = read_folder(root, CR7_NAMES, None)
    assert len(source.items) == 12
    reasons = "; ".join(reason for _, reason in source.problems)
    assert "dents1.jpg: cannot be decoded" in reasons
    assert "pits1.txt:2: class id 9 is out of range" in reasons


def test_a_folder_without_images_or_labels_is_reported(tmp_path):
    with pytest.raises(UserError, match="no images in"):
        read_folder(tmp_path)
    write_picture(tmp_path / "a.png", 0)
    with pytest.raises(UserError, match="no labels for 1 image"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("word", "split"),
    [("train", "train"), ("Training", "train"), ("val2017", "val"), ("valid", "val"), ("validation", "val"),
     ("testing", "test"), ("unlabelled", "unlabeled"), ("unlabeled2017", "unlabeled"), ("trainer", None),
     ("images", None), ("value", None)],
)  # fmt: skip
def test_words_that_name_a_split(word, split, tmp_path):
    assert split_named([word]) == split
    assert split_of(tmp_path / word / "train.jpg", tmp_path) == split
