import json
import re

import numpy as np
import pytest

from tests.datasets.material import coco_json, write_picture
from tests.datasets.reading import read_folder


def test_category_ids_with_gaps_become_class_ids(tmp_path):
    for i, name in enumerate(("a.png", "b.png", "c.png")):
        write_picture(tmp_path / "images" / name, i)
    files = {"a.png": [(7, [16, 12, 32, 24]), (3, [0, 0, 64, 48])], "b.png": []}
    (tmp_path / "annotations.json").write_text(coco_json(files))
    source = read_folder(tmp_path)
    assert source.names == ("pit", "scratch")
    boxes = {item.image.name: item.boxes for item in source.items}
    np.testing.assert_allclose(boxes["a.png"], [[0, 0.5, 0.5, 1, 1], [1, 0.5, 0.5, 0.5, 0.5]])
    assert boxes["b.png"].shape == (0, 5)  # listed without annotation: known to be free of defects
    assert boxes["c.png"] is None  # not listed: nothing is known


def test_splits_come_from_file_and_folder_names(tmp_path):
    for folder in ("train2017", "val2017"):
        write_picture(tmp_path / folder / "same.png", 0)
    for name, category in (("train", 3), ("val", 7)):
        path = tmp_path / "annotations" / f"instances_{name}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(coco_json({"same.png": [(category, [0, 0, 8, 8])]}))
    source = read_folder(tmp_path)
    assert {item.split: int(item.boxes[0, 0]) for item in source.items} == {"train": 0, "val": 1}


def test_a_json_beside_its_images_as_roboflow_exports(tmp_path):
    for split, category in (("train", 1), ("valid", 2)):
        write_picture(tmp_path / split / "same.png", 0)
        text = coco_json({"same.png": [(category, [0, 0, 8, 8])]}, {0: "none", 1: "pit", 2: "scratch"})
        (tmp_path / split / "_annotations.coco.json").write_text(text)
    source = read_folder(tmp_path)
    assert source.names == ("pit", "scratch")  # "none" is only the parent of the others
    assert {item.split: int(item.boxes[0, 0]) for item in source.items} == {"train": 0, "val": 1}


def broken(change):
    content = json.loads(coco_json({"a.png": [(3, [1, 1, 8, 8])]}))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(bbox=[1, 1, -8, 8]), "image 'a.png': .*has no area"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, float("nan"), 8]), "image 'a.png': .*NaN"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, 800, 8]), "image 'a.png': .*reaches outside the image"),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, 8]), "image 'a.png'"),
        (lambda c: c["annotations"][0].pop("bbox"), "image 'a.png': .*'bbox' is missing"),
        (lambda c: c["annotations"][0].update(category_id=5), "image 'a.png': .*category_id 5"),
        (lambda c: c["images"][0].update(file_name="gone.png"), "image 'gone.png': the image is not in"),
    ],
)
def test_a_wrong_annotation_is_reported_with_its_image(tmp_path, change, message):
    write_picture(tmp_path / "a.png", 0)
    (tmp_path / "x.json").write_text(broken(change))
    (_, reason), *_ = read_folder(tmp_path).problems

    assert re.search(rf"x\.json: {message}", reason), reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=9), "image_id 9"),
        (lambda c: c["images"][0].pop("file_name"), "file_name"),
        (lambda c: c["categories"][0].update(name="scratch"), "'scratch'"),
    ],
)
def test_a_damaged_file_is_a_problem(tmp_path, change, message):
    write_picture(tmp_path / "a.png", 0)
    (tmp_path / "x.json").write_text(broken(change))
    (_, reason), *_ = read_folder(tmp_path).problems
    assert str(tmp_path / "x.json") in reason and message in reason


def test_files_may_list_different_categories(tmp_path):
    write_picture(tmp_path / "train" / "a.png", 0)
    write_picture(tmp_path / "val" / "a.png", 1)
    (tmp_path / "train" / "x.json").write_text(coco_json({"a.png": [(1, [1, 1, 8, 8])]}, {1: "pit"}))
    (tmp_path / "val" / "x.json").write_text(coco_json({"a.png": [(1, [1, 1, 8, 8])]}, {1: "dent"}))
    source = read_folder(tmp_path)
    assert {item.split: source.names[int(item.boxes[0, 0])] for item in source.items} == {"train": "pit", "val": "dent"}


def test_polygons_are_not_drawn_in_memory(tmp_path):
    write_picture(tmp_path / "a.png", 0)
    text = broken(lambda c: c["annotations"][0].update(segmentation=[[1, 1, 9, 1, 9, 9, 1, 9]]))
    (tmp_path / "x.json").write_text(text)
    assert len(read_folder(tmp_path).items[0].boxes) == 1
