"""JSON files: encodings, damage, and what is no label file."""

import json
import re

import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile, OtherFile
from dfssd.datasets.readers.json_files import read_json
from tests.datasets.material import coco_json

COCO = coco_json({"划痕.png": [(3, [1, 2, 3, 4])]})


@pytest.fixture
def read(tmp_path):
    def from_bytes(data):
        file = tmp_path / "x.json"
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_json(file)

    return from_bytes


def test_utf_8_with_and_without_mark(read):
    for data in (COCO.encode(), b"\xef\xbb\xbf" + COCO.encode(), b"\r\n" + COCO.encode()):
        found = read(data)
        assert isinstance(found, LabelFile) and found.annotations[0].boxes.tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (COCO.encode("utf-16"), "is not UTF-8 .but UTF-16 or UTF-32.; save it as UTF-8"),
        (COCO.encode("utf-16-le"), "is not UTF-8"),
        (COCO.encode("utf-32"), "is not UTF-8"),
        ('{"images": "划痕"}'.encode("gbk"), r"is not UTF-8 \(byte 0xbb at 12\); save it as UTF-8"),
        (b"", "is empty; export it again, or remove it"),
        (b" \n", "is empty"),
        (b"\x00" * 8, "is not UTF-8"),
        (COCO[:-20], r"is not valid JSON \(.* in line 1, column \d+\); export it again, or remove it from the data"),
        ("{'images': []}", "is not valid JSON"),
        ('{"a": 1} {"a": 2}', "is not valid JSON .Extra data in line 1"),
        ("[" * 200_000, "is nested more than limits"),
        ('{"a":' * 200_000, "is nested more than limits"),
        (COCO.replace('"images"', '"categories"'), "has the key 'categories' twice in one object; keep one of them"),
    ],
)
def test_what_cannot_be_read_is_broken(read, data, problem):
    found = read(data)
    assert isinstance(found, BrokenFile), found
    assert re.search(problem, found.problem), found.problem
    assert "\n" not in found.problem


def test_a_number_of_ten_thousand_digits_is_no_traceback(read):
    found = read(COCO.replace("[1, 2, 3, 4]", f"[1, 2, {'9' * 10_000}, 4]"))
    # newer Pythons refuse to read it, older ones read it as a number that is too large for a box
    problems = [found.problem] if isinstance(found, BrokenFile) else [a.problem for a in found.annotations]
    assert re.search("too many digits|'bbox' is infinite", problems[0])


def test_a_file_that_cannot_be_opened_is_broken(tmp_path):
    found = read_json(tmp_path / "gone.json")
    assert isinstance(found, BrokenFile) and found.problem.startswith("cannot be read (No such file or directory)")


@pytest.mark.parametrize(
    "content",
    [
        {"name": "inspection", "version": "1.0.0", "dependencies": {"vue": "^3"}},
        {"python.analysis": {"segmentation": True, "polygon": "auto"}, "editor.rulers": [120]},
        {"categories": 7},
        {"lr": 0.1, "model": {"type": "yolo", "bbox": None}},
        {"shapes": {"input": [1, 3, 640, 640]}},
        [],
        {},
        [1, 2, [3]],
        "text",
        None,
        7,
    ],
)
def test_other_json_is_left_out(read, content):
    found = read(json.dumps(content))
    assert isinstance(found, OtherFile) and found.reason == "it is JSON without labels"


def test_a_key_that_is_repeated_in_other_json_matters_to_nobody(read):
    assert isinstance(read('{"a": 1, "a": 2}'), OtherFile)


def test_detections_are_no_labels(read):
    results = [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.9}]
    assert read(json.dumps(results)).reason == "it holds detections of a model, not labels"
    del results[0]["score"]
    found = read(json.dumps(results))
    assert isinstance(found, BrokenFile) and "annotations of COCO without images and categories" in found.problem


@pytest.mark.parametrize(
    "content",
    [
        [{"name": "a.png", "labels": [{"category": "pit", "box2d": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}}]}],
        {"a.png": [{"class": "pit", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}]},
        {"item": {"name": "a.png"}, "annotations": [{"name": "pit", "bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4}}]},
        {"items": [{"id": "a", "annotations": [{"type": "bbox", "bbox": [1, 2, 3, 4]}]}], "categories": {}},
    ],
)
def test_labels_in_another_form_are_not_passed_over(read, content):
    found = read(json.dumps(content))
    assert isinstance(found, BrokenFile), found
    assert re.fullmatch(
        r"looks like labels \('\w+'\) in a form that is not read; convert it to COCO, .*", found.problem
    )


def test_the_search_for_boxes_ends(read):
    assert isinstance(read(json.dumps({"log": [{"step": i} for i in range(20_000)]})), OtherFile)
