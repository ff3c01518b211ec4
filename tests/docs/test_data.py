"""The data set YAML that docs/data.md shows is read as it stands, and its words about labels are true."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import cv2
import numpy as np

from tests.configured import load_dataset
from tests.docs.test_links import ROOT
from tests.field.case import Taken
from tests.field.table import CASES


def test_the_yaml_is_read(tmp_path: Path) -> None:
    [block] = re.findall(r"^    # my_data\.yaml.*?(?=^$)", (ROOT / "docs" / "data.md").read_text("utf-8"), re.M | re.S)
    rng = np.random.default_rng(0)
    for folder, n in (("images/train", 4), ("images/val", 1), ("more_images", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(n):
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), rng.integers(0, 255, (32, 40, 3), np.uint8))
    for part, rows in {"train/0": "0 .5 .5 .2 .2\n", "train/1": "1 .5 .5 .2 .2\n", "train/2": "", "val/0": ""}.items():
        label = tmp_path / "labels" / f"{part}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(rows)
    (tmp_path / "my_data.yaml").write_text(re.sub("^    ", "", block, flags=re.M), encoding="utf-8")
    found = {}
    for missing in ("unlabeled", "background"):
        dataset = load_dataset(str(tmp_path / "my_data.yaml"), tmp_path / "sets", missing_label=missing)
        assert dataset.names == ("scratch", "dent")
        found[missing] = sorted((item.split, -1 if item.boxes is None else len(item.boxes)) for item in dataset.items)
    same = [("train", 0), ("train", 1), ("train", 1), ("val", 0), ("unlabeled", -1), ("unlabeled", -1)]
    assert found["unlabeled"] == sorted([*same, ("train", -1)])
    assert found["background"] == sorted([*same, ("train", 0)])


LAYOUTS = {
    "YOLO with YAML": "yolo_yaml",
    "YOLO without YAML": "yolo_folders",
    "Roboflow": "roboflow_yolo",
    'CVAT "YOLO", Darknet': "cvat_yolo",
    'CVAT "Ultralytics YOLO"': "cvat_ultralytics",
    'Label Studio "YOLO"': "labelstudio_yolo",
    "CR7-DET": "cr7_folders",
    "Pascal VOC": "voc_image_sets",
    "COCO": "coco_in_one_folder",
    'CVAT "CVAT for images"': "cvat_xml",
    "LabelMe, X-AnyLabeling": "labelme_side_by_side",
    'Label Studio "JSON"': "label_studio_json",
    "table": "csv_of_a_spreadsheet",
}
"""The case of ``tests/field`` that is built like the tree of each row."""


def test_the_layouts_are_those_that_are_tested() -> None:
    text = (ROOT / "docs" / "data.md").read_text("utf-8")
    trees = dict(re.findall(r"^\| ([^|]+) \| <pre>(.+?)</pre> \|", text, re.M))
    assert list(trees) == list(LAYOUTS)
    for layout, tree in trees.items():
        case = CASES[LAYOUTS[layout]]
        files = list(case.build())
        assert isinstance(case.expected, Taken)
        for line in tree.split("<br>"):
            assert fnmatch.filter(files, line.replace("001", "*")), (layout, line)
