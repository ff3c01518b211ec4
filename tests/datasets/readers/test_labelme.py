"""LabelMe and X-AnyLabeling: which box each shape gives, and what no shape may pass over."""

import json
import re

import numpy as np
import pytest

from dfssd.datasets.annotations import LabelFile
from dfssd.datasets.readers.json_files import read_json
from dfssd.datasets.readers.labelme import GROUPED, KEYPOINTS, TURNED


def shape(points, kind="rectangle", label="pit", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


@pytest.fixture
def read(tmp_path):
    def from_shapes(*shapes, **more):
        content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.png", "imageData": "iVBO"}
        content |= {"imageHeight": 64, "imageWidth": 96} | more
        file = tmp_path / "a.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return read_json(file)

    return from_shapes


def only(found):
    assert isinstance(found, LabelFile) and found.format == "labelme" and len(found.annotations) == 1, found
    return found.annotations[0]


@pytest.mark.parametrize(
    ("points", "kind", "box"),
    [
        ([[10, 20], [30.5, 50]], "rectangle", [10, 20, 30.5, 50]),
        ([[30.5, 20], [10, 50]], "rectangle", [10, 20, 30.5, 50]),  # drawn from the upper right corner
        ([[10, 20], [30, 20], [30, 50], [10, 50]], "rectangle", [10, 20, 30, 50]),
        ([[10, 20], [30, 25], [20, 50]], "polygon", [10, 20, 30, 50]),
        ([[10, 20], [30, 25], [20, 50]], None, [10, 20, 30, 50]),  # before there were kinds of shapes
        ([[50, 30], [53, 34]], "circle", [45, 25, 55, 35]),
        ([[4, 30], [7, 34]], "circle", [0, 25, 9, 35]),  # stands out of the image
        ([[20, 10], [40, 20], [35, 30], [15, 20]], "rotation", [15, 10, 40, 30]),
        ([[20, -10], [140, 20], [35, 30], [15, 20]], "oriented_rectangle", [15, 0, 96, 30]),
        ([[20, 10], [40, 20], [35, 70], [15, 20]], "quadrilateral", [15, 10, 40, 64]),
        ([[10, 20], [29, 49]], "mask", [10, 20, 30, 50]),
        ([[90, 60], [95, 63]], "mask", [90, 60, 96, 64]),
    ],
)
def test_the_box_of_a_shape(read, points, kind, box):
    annotation = only(read(shape(points, kind)))
    assert annotation.problem is None
    assert annotation.labels == ("pit",)
    np.testing.assert_allclose(annotation.boxes, [box])


def test_the_image_is_the_one_that_the_file_names(read):
    annotation = only(read(imagePath="..\\images\\b.png"))
    assert (annotation.image, annotation.size) == ("../images/b.png", (96, 64))
    assert only(read(imagePath=None, imageWidth=None)).image is None
    assert only(read(imageWidth=0)).size is None


def test_no_shape_means_free_of_defects(read):
    annotation = only(read())
    assert annotation.boxes.shape == (0, 4) and annotation.problem is None and annotation.labels == ()


def test_flags_beside_no_shape_are_told(read):
    found = read(flags={"dent": True, "good": False})
    assert only(found).boxes.shape == (0, 4) and found.notes == ("no shape, but 'dent' among its flags: defect-free",)
    assert read(shape([[1, 1], [9, 9]]), flags={"dent": True}).notes == ()


def test_turned_boxes_are_told(read):
    assert read(shape([[20, 10], [40, 20], [35, 30], [15, 20]], "rotation")).notes == (TURNED,)


def test_shapes_of_one_group_and_class_are_one_object(read):
    found = read(
        shape([[10, 10], [20, 20]], group_id=1),
        shape([[10, 10], [20, 20]], label="dent", group_id=1),
        shape([[50, 5], [60, 15]], group_id=1),
        shape([[50, 5], [60, 15]], group_id=2),
    )
    annotation = only(found)
    assert annotation.labels == ("pit", "dent", "pit")
    assert annotation.boxes.tolist() == [[10, 5, 60, 20], [10, 10, 20, 20], [50, 5, 60, 15]]
    assert found.notes == (GROUPED,)


def test_points_in_the_group_of_a_box_are_keypoints(read):
    found = read(
        shape([[12, 12]], "point", "nose", group_id=7),
        shape([[10, 10], [20, 20]], label="person", group_id=7),
    )
    assert only(found).labels == ("person",) and found.notes == (KEYPOINTS,)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (shape([[10, 20], [10, 50]]), r"shapes\[0\]: the rectangle has no area \(width 0, height 30\)"),
        (shape([[10, 20]]), "a rectangle has 1 point, expected 2 or 4"),
        (shape([[10, 20], [30, 40]], "polygon"), "a polygon has 2 points, expected at least 3"),
        (shape([[10, 20], [30, 40]], "rotation"), "a rotation has 2 points, expected 4"),
        (shape([[10, 20], [10, 20]], "circle"), "the circle has no area"),
        (shape([[200, 20], [203, 24]], "circle"), "the circle has no area"),  # outside of the image
        (shape([[10, 20]], "point"), "'pit' is a point, which has no area; draw a box or a polygon"),
        (shape([[10, 20], [30, 40]], "line", group_id=3), "'pit' is a line, which has no area"),
        (shape([[10, 20], [30, 40], [50, 50]], "linestrip"), "'pit' is a linestrip"),
        (shape([[10, 20], [30, 40]] * 4, "cuboid"), "shape_type 'cuboid' is not known"),
        (shape([[10, 20], [30, 40]], ["rectangle"]), r"shape_type \['rectangle'\] is not known"),
        (shape([[10, 20], [30, 40]], label=None), "'label' is None, expected the name of a class"),
        (shape([[10, 20], [30, 40]], label="  "), "'label' is empty"),
        (shape([[10, 20], [30, float("nan")]]), "'points' is NaN"),
        (shape([[10, 20], [30, 40, 50]]), "'points' has 3 values, expected 2"),
        (shape([10, 20, 30, 40]), "'points' is 10, expected a list of numbers"),
        (shape(None), "'points' is None, expected a list of points"),
        (shape([[10, 20], [30, 40]], group_id=[1]), r"'group_id' is \[1\]"),
        ("pit", r"shapes\[0\]: expected an object, not 'pit'"),
    ],
)
def test_a_wrong_shape_is_the_problem_of_the_image(read, broken, problem):
    annotation = only(read(broken, shape([[1, 1], [9, 9]])))
    assert re.search(problem, annotation.problem or ""), annotation.problem
    assert annotation.image == "a.png"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"shapes": None}, "'shapes' is None, expected a list"),
        ({"imageWidth": -96}, "the width is -96"),
        ({"imageHeight": "tall"}, "the height is 'tall', expected a number"),
        ({"imagePath": ["a.png"]}, r"'imagePath' is \['a.png'\]"),
        ({"imagePath": "images/"}, "'imagePath' is 'images/'"),
    ],
)
def test_a_damaged_file_is_a_problem(read, more, problem):
    assert re.search(problem, only(read(shape([[1, 1], [9, 9]]), **more)).problem)
