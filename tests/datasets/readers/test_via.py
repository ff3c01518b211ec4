"""VGG Image Annotator: shapes, and which attribute is the class."""

import json
import re

import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile, OtherFile
from dfssd.datasets.readers.json_files import read_json

RECT = {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 30}


def region(shape=None, **attributes):
    return {"shape_attributes": shape or RECT, "region_attributes": attributes or {"defect": "pit"}}


def entry(*regions, name="a.png"):
    return {f"{name}4711": {"filename": name, "size": 4711, "regions": list(regions), "file_attributes": {}}}


@pytest.fixture
def read(tmp_path):
    def from_content(content):
        file = tmp_path / "via_project.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return read_json(file)

    return from_content


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (RECT, [10, 20, 30, 50]),
        ({"name": "polygon", "all_points_x": [10, 30, 20], "all_points_y": [20, 25, 50]}, [10, 20, 30, 50]),
        ({"name": "circle", "cx": 20, "cy": 30, "r": 10}, [10, 20, 30, 40]),
        ({"name": "ellipse", "cx": 20, "cy": 30, "rx": 10, "ry": 5}, [10, 25, 30, 35]),
        ({"name": "ellipse", "cx": 20, "cy": 30, "rx": 10, "ry": 5, "theta": np.pi / 2}, [15, 20, 25, 40]),
    ],
)
def test_the_box_of_a_shape(read, shape, box):
    found = read(entry(region(shape)))
    (annotation,) = found.annotations
    assert (annotation.image, annotation.labels, annotation.problem) == ("a.png", ("pit",), None)
    np.testing.assert_allclose(annotation.boxes, [box])


def test_a_project_and_the_older_form(read):
    images = entry(region()) | entry(name="b.png")
    found = read({"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}})
    assert isinstance(found, LabelFile) and found.format == "via"
    assert [(a.image, a.labels) for a in found.annotations] == [("a.png", ("pit",)), ("b.png", ())]
    assert found.notes == ("1 image without regions: defect-free",)
    images["a.png4711"]["regions"] = {"0": region()}
    assert read(images).annotations[0].labels == ("pit",)
    assert isinstance(read({"_via_img_metadata": {}}), OtherFile)


def test_the_class_among_several_attributes(read):
    found = read(entry(region(Class="pit", depth="3"), region(Class="dent")))
    assert found.annotations[0].labels == ("pit", "dent")
    unclear = read(entry(region(kind="pit", depth="3")))
    assert isinstance(unclear, BrokenFile)
    assert "its regions have the attributes 'kind', 'depth', and it is not clear which is the class" in unclear.problem
    assert isinstance(read(entry(region(type="pit", name="3"))), BrokenFile)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (region({**RECT, "width": 0}), "region 2: the rect has no area"),
        (region({**RECT, "x": "left"}), "region 2: 'x' is 'left', expected a number"),
        (region({"name": "point", "cx": 1, "cy": 2}), "region 2: it is a point, which has no area"),
        (region({"name": "polyline"}), "region 2: it is a polyline"),
        (region({"name": "star"}), "region 2: its shape is 'star', expected"),
        (
            region({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]}),
            "region 2: its polygon has 2 x and 1 y",
        ),
        (region({"name": "ellipse", "cx": 1, "cy": 1, "rx": -1, "ry": 1}), "region 2: the ellipse has no area"),
        ({"shape_attributes": RECT}, "region 2: the attribute 'defect' is None"),
        (region(defect={"pit": True}), "region 2: the attribute 'defect' is {'pit': True}, expected the name"),
        ({"region_attributes": {}}, "region 2: {'region_attributes': {}} has no 'shape_attributes'"),
    ],
)
def test_a_wrong_region_is_the_problem_of_its_image(read, broken, problem):
    a, b = read(entry(region(), broken) | entry(region(), name="b.png")).annotations
    assert a.problem.startswith(problem), a.problem
    assert b.problem is None


def test_regions_without_any_attribute_have_no_class(read):
    (annotation,) = read(entry({"shape_attributes": RECT, "region_attributes": {}})).annotations
    assert annotation.problem.startswith("region 1: its class is None, expected the name of a class")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"b.png1": 7}, "'b.png1' is 7, expected an image with regions"),
        ({"b.png1": {"filename": "b.png", "regions": 7}}, "'regions' of 'b.png1' is 7, expected a list"),
        ({"b.png1": {"filename": 7, "regions": []}}, "'filename' of 'b.png1' is 7, expected the path"),
    ],
)
def test_a_damaged_file_is_broken(read, more, problem):
    found = read(entry(region()) | more)
    assert isinstance(found, BrokenFile) and re.match(f"is not valid VIA: {problem}", found.problem)
