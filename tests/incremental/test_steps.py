"""Data of the steps: classes, boxes that are left out, images of one name, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.splits import Split
from dfssd.errors import UserError
from dfssd.incremental.steps import Step, parse_steps, write_step
from tests.configured import load_dataset

NAMES = ("a", "b", "c", "d", "e", "f")


def item(path: Path, *classes: int, split: str | None = None) -> Item:
    boxes = np.array([[c, 0.5, 0.5, 0.2, 0.1] for c in classes], np.float32).reshape(-1, 5)
    return Item(path, boxes, split)


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionSet:
    """Ten images; two of them are called alike."""
    shown = [(0,), (1, 3), (2,), (3,), (4, 5), (5, 0, 0), (0, 4), (2, 5), (1,), (3,)]
    items = []
    for k, classes in enumerate(shown):
        path = tmp_path / f"folder{k % 2}" / ("same.png" if k in {3, 4} else f"im{k}.png")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([k]))
        items.append(item(path, *classes))
    return DetectionSet("toy", NAMES, tuple(items))


def split_of(dataset: DetectionSet) -> Split:
    paths = tuple(i.image for i in dataset.items)
    return Split(paths[:7], (paths[9],), (paths[7],), (paths[8],))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3,3", [(0, 3), (3, 6)]),
        ([4, 2], [(0, 4), (4, 6)]),
        ("5,1", [(0, 5), (5, 6)]),
        ("3,1,1,1", [(0, 3), (3, 4), (4, 5), (5, 6)]),
    ],
)
def test_steps_are_consecutive_classes(value, expected) -> None:
    steps = parse_steps(value, NAMES)
    assert [(s.first, s.last) for s in steps] == expected
    assert [s.name for s in steps] == [f"step{k + 1}" for k in range(len(expected))]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("6", "at least two steps"),
        ("3,x", "at least two steps"),
        ("3,0,3", "at least two steps"),
        ([3, 3.0], "at least two steps"),
        ("3,2", "are 5 classes, the data set has 6"),
    ],
)
def test_wrong_steps_are_reported(value, message) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_steps(value, NAMES)
    assert "\n" not in str(caught.value)


def labels(folder: Path) -> dict[str, list[int]]:
    return {
        file.stem: read_label_file(file, 6)[:, 0].astype(int).tolist()
        for file in sorted((folder / "labels").glob("*.txt"))
    }


def test_training_part_of_a_step_shows_its_classes_alone(dataset, tmp_path) -> None:
    folder = tmp_path / "step2"
    output = write_step(dataset, split_of(dataset), Step(2, 3, 6), folder)
    assert labels(folder / "train") == {"im1": [3], "im5": [5], "im6": [4], "same": [3], "same_": [4, 5]}
    assert labels(folder / "val") == {"im7": [2, 5]} and labels(folder / "test") == {"im8": [1]}
    assert output["classes"] == ["d", "e", "f"] and output["images"] == 5 and output["boxes"] == 6
    assert output["removed"] == {"a": 3, "b": 1}
    pictures = {p.stem: p.read_bytes() for p in (folder / "train" / "images").iterdir()}
    assert pictures["same"] == bytes([3]) and pictures["same_"] == bytes([4])
    assert labels(folder / "unlabeled") == {"im9": [3]} and (folder / "unlabeled" / "images" / "im9.png").exists()


def test_first_step_and_joint_training(dataset, tmp_path) -> None:
    write_step(dataset, split_of(dataset), Step(1, 0, 3), tmp_path / "one")
    assert labels(tmp_path / "one" / "train") == {"im0": [0], "im1": [1], "im2": [2], "im5": [0], "im6": [0]}
    assert labels(tmp_path / "one" / "val") == {"im7": [2]}, "a class that is not known yet is not asked for"
    assert not (tmp_path / "one" / "unlabeled").exists(), "the base learns from labels alone"
    output = write_step(dataset, split_of(dataset), Step(2, 3, 6), tmp_path / "both", joint=True)
    assert output["images"] == 7 and output["removed"] == {}


def test_a_class_without_image_is_reported(dataset, tmp_path) -> None:
    split = split_of(dataset)
    fewer = Split(split.train_labeled[:4], (), split.val, split.test)
    with pytest.raises(UserError, match="step2: no labeled training image has a box of 'e'"):
        write_step(dataset, fewer, Step(2, 3, 6), tmp_path / "step2")
    assert not (tmp_path / "step2" / "data.yaml").exists()


def test_written_step_is_a_data_set(squares, tmp_path) -> None:
    whole = load_dataset(str(squares), tmp_path / "d")
    parts = {name: tuple(i.image for i in whole.items if i.split == name) for name in ("train", "val", "test")}
    split = Split(parts["train"], (), parts["val"], parts["test"])
    output = write_step(whole, split, Step(2, 1, 2), tmp_path / "step2")
    again = load_dataset(output["yaml"], tmp_path / "d")
    assert again.names == whole.names and len(again.items) == sum(map(len, parts.values()))
    for known in again.items:
        assert set(known.classes) == ({1} if known.split == "train" else {0, 1})
