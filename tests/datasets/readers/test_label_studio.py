"""Label Studio: JSON, JSON-MIN, the class list of its YOLO export; positions in percent, several annotators."""

import json
import re

import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, ClassFile, LabelFile, OtherFile
from dfssd.datasets.readers.json_files import read_json


def region(kind="rectanglelabels", names=("pit",), more=None, **value):
    """In an image of 200 x 50 px."""
    value = value or {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    entry = {"id": "r1", "type": kind, "from_name": "label", "to_name": "image", "original_width": 200}
    entry |= {"original_height": 50, "image_rotation": 0, "value": {**value, kind: list(names)}}
    return entry | (more or {})


def task(*annotations, image="/data/upload/1/8c1b2a3d-cam_001.png", **more):
    return {"id": 3, "annotations": list(annotations), "data": {"image": image}, "predictions": []} | more


def done(*regions, **more):
    return {"id": 17, "result": list(regions), "was_cancelled": False, "ground_truth": False} | more


@pytest.fixture
def read(tmp_path):
    def from_content(content):
        file = tmp_path / "project-1.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return read_json(file)

    return from_content


def only(found):
    assert isinstance(found, LabelFile) and found.format == "label-studio" and len(found.annotations) == 1, found
    return found.annotations[0]


@pytest.mark.parametrize(
    ("drawn", "box"),
    [
        (region(), [20, 10, 80, 30]),
        (region(x=10, y=20, width=30, height=40, rotation=360), [20, 10, 80, 30]),
        # a quarter turn clockwise around the upper left corner (20, 10): 60 x 20 becomes 20 x 60, to the left and below
        (region(x=10, y=20, width=30, height=40, rotation=90), [0, 10, 20, 50]),
        # 30 degrees around (100, 10), 40 x 10: -10 sin 30, 0, 40 cos 30, 40 sin 30 + 10 cos 30
        (region(x=50, y=20, width=20, height=20, rotation=30), [95, 10, 134.641016, 38.660254]),
        (region("polygonlabels", points=[[10, 20], [40, 30], [20, 60]]), [20, 10, 80, 30]),
        (region("ellipselabels", x=50, y=50, radiusX=10, radiusY=20, rotation=0), [80, 15, 120, 35]),
        (region("ellipselabels", x=50, y=50, radiusX=10, radiusY=20, rotation=90), [90, 5, 110, 45]),
    ],
)
def test_percent_become_pixels(read, drawn, box):
    annotation = only(read([task(done(drawn))]))
    assert (annotation.labels, annotation.size, annotation.problem) == (("pit",), (200, 50), None)
    np.testing.assert_allclose(annotation.boxes, [box], atol=1e-6)
    assert annotation.where.endswith("project-1.json: image '8c1b2a3d-cam_001.png' (task 3)")


@pytest.mark.parametrize(
    ("address", "image"),
    [
        ("/data/upload/1/8c1b2a3d-cam_001.png", "8c1b2a3d-cam_001.png"),
        ("http://localhost:8080/data/upload/8c1b2a3d-cam%20001.png?x=1", "8c1b2a3d-cam 001.png"),
        ("/data/local-files/?d=line%203/a.png", "line 3/a.png"),
        ("/data/local-files/?d=line 3\\a.png", "line 3/a.png"),
        ("s3://bucket/line3/a.png", "line3/a.png"),
        ("https://host/line3/%E5%88%92.png?token=a/b.png", "line3/划.png"),
        ("a#1.png", "a#1.png"),
    ],
)
def test_the_image_of_an_address(read, address, image):
    assert only(read([task(done(), image=address)])).image == image


def test_the_image_may_have_another_key(read):
    assert only(read([task(done(), data={"photo": "line3/a.png", "part": "47.11"})])).image == "line3/a.png"


def test_labels_in_an_entry_of_their_own(read):
    drawn = [
        region("rectangle", (), more={"id": "a"}),
        {"id": "a", "type": "labels", "value": {"x": 10, "labels": ["dent"]}},
        {"id": "a", "type": "choices", "value": {"x": 10, "choices": ["large"]}},
    ]
    assert only(read([task(done(*drawn))])).labels == ("dent",)


def test_regions_with_one_id_are_two(read):
    annotation = only(read([task(done(region(), region(names=["dent"])))]))
    assert annotation.labels == ("pit", "dent")


def test_what_is_not_annotated_is_not_mentioned(read):
    skipped = task(done(region(), was_cancelled=True), id=5)
    found = read([task(done()), task(id=4, predictions=[done(region())]), skipped])
    assert only(found).boxes.shape == (0, 4)  # looked at, and nothing found: free of defects
    assert found.notes == ("2 tasks without annotation, 1 of them skipped: unlabeled",)


def test_several_annotators(read):
    first, second = done(region(), id=17), done(region(names=["dent"]), id=18)
    found = read([task(first, second)])
    assert [(a.labels, a.where.rpartition(": ")[2]) for a in found.annotations] == [
        (("pit",), "image '8c1b2a3d-cam_001.png' (task 3, annotation 17)"),
        (("dent",), "image '8c1b2a3d-cam_001.png' (task 3, annotation 18)"),
    ]
    found = read([task(first, second | {"ground_truth": True})])
    assert only(found).labels == ("dent",)
    assert found.notes == ("1 task with several annotations: the one marked as ground truth is taken",)


def flat(**more):
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["pit"]}
    drawn = value | {"original_width": 200, "original_height": 50}
    entry = {"id": 3, "image": "/data/upload/1/8c1b2a3d-cam_001.png", "label": [drawn]}
    return entry | {"annotator": 1, "annotation_id": 2, "lead_time": 3.5} | more


def test_json_min(read):
    annotation = only(read([flat()]))
    assert (annotation.image, annotation.labels, annotation.size) == ("8c1b2a3d-cam_001.png", ("pit",), (200, 50))
    assert annotation.boxes.tolist() == [[20, 10, 80, 30]]
    assert only(read([flat(label=[])])).boxes.shape == (0, 4)
    unnamed = [{"x": 10, "y": 20, "width": 30, "height": 40, "original_width": 200, "original_height": 50}]
    assert "it has no label" in only(read([flat(label=unnamed)])).problem


def test_a_file_of_the_cloud_storage(read):
    stored = done(region()) | {"task": {"id": 3, "data": {"image": "s3://bucket/a.png"}}}
    assert only(read(stored)).image == "a.png"


@pytest.mark.parametrize(
    ("drawn", "problem"),
    [
        (region(x=10, y=20, width=0, height=40), r"region 1: its box has no area"),
        (region(x=10, y=20, width=-5, height=40, rotation=45), "its box has no area"),
        (region(x=10, y=20, width="wide", height=40), "width is 'wide', expected a number"),
        (region(x=10, y=20, width=30), "height is None"),
        (region(names=[]), "it has no label; give it one"),
        (region(names=["pit", "dent"]), r"it has 2 labels \(pit, dent\)"),
        (region(names=[7.5]), "the label is 7.5, expected the name of a class"),
        (region("polygonlabels", points=[[1, 2], [3, 4]]), "its polygon has 2 points"),
        (region("polygonlabels", points=[[1, 2], [3]]), "'points' has 1 value"),
        (region("ellipselabels", x=50, y=50, radiusX=-1, radiusY=20), "the ellipse has no area"),
        (region("brushlabels", rle=[1, 2]), "it is a brush region, which has no box"),
        (region("keypointlabels", x=1, y=2, width=3), "it is a point, which has no area"),
        (region("videolabels", x=1, y=2), "is of the type 'videolabels', which has no box"),
        (region(more={"original_width": None}), "original_width and original_height are missing"),
        (region(more={"original_width": -1}), "the width is -1"),
        (region(more={"image_rotation": 90}), "the image was turned in Label Studio"),
        (region(more={"value": None}), "'value' of result.0. is None"),
        (region(more={"type": None}), r"result\[0\] is .*expected a region"),
        ("pit", r"result\[0\] is 'pit', expected a region"),
    ],
)
def test_a_wrong_region_is_the_problem_of_its_image(read, drawn, problem):
    found = read([task(done(drawn)), task(done(region()), image="b.png")])
    first, second = found.annotations
    assert re.search(problem, first.problem or ""), first.problem
    assert second.problem is None and second.labels == ("pit",)


def test_one_image_has_one_size(read):
    found = read([task(done(region(), region(more={"original_width": 100})))])
    assert "the image has two sizes, (200, 50) and (100, 50) px" in only(found).problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([task(done()), 7], "task number 2 is 7, expected a task as the others"),
        ([task(7)], r"the annotations of task 3 are \[7\], expected a list of objects"),
        ([task(done(), data={"text": "a"})], "task 3 names no image, expected one"),
        (
            [task(done(), data={"left": "a.png", "right": "b.png"})],
            "task 3 names 2 images .'left', 'right'., expected one",
        ),
        ([task(done(), image="/data/local-files/?x=a.png")], "the image of task 3 is '.*', expected the path"),
    ],
)
def test_a_damaged_export_is_broken(read, content, problem):
    found = read(content)
    assert isinstance(found, BrokenFile), found
    assert re.search(f"^is not a valid export of Label Studio: {problem}.*; export it again$", found.problem)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([task(), task()], "its 2 tasks have no annotation"),
        ([task(done({"type": "choices", "value": {"choices": ["good"]}}))], "its annotations hold choices or texts"),
        ({"categories": [{"id": 1, "name": "pit"}]}, "it lists categories, but no images and no ids from 0 on"),
    ],
)
def test_exports_without_labels(read, content, reason):
    found = read(content)
    assert isinstance(found, OtherFile) and found.reason.startswith(reason)


def test_the_class_list_of_a_yolo_export(read):
    listed = [{"id": 1, "name": "pit "}, {"id": 0, "name": "dent"}]
    found = read({"categories": listed, "info": {"year": 2024, "version": "1.0", "contributor": "Label Studio"}})
    assert isinstance(found, ClassFile) and found.names == ("dent", "pit")


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        ([{"id": 0, "name": "pit"}, {"id": 0, "name": "dent"}], "the id 0 is listed twice"),
        ([{"id": 0, "name": ""}], r"'name' of categories\[0\] is empty"),
        ([{"name": "pit"}], r"'id' of categories\[0\] is None"),
        (["pit"], r"categories\[0\] is 'pit'"),
    ],
)
def test_a_damaged_class_list_is_broken(read, listed, problem):
    found = read({"categories": listed, "info": {}})
    assert isinstance(found, BrokenFile)
    assert re.search(problem, found.problem)
