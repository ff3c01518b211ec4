import math

import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile, OtherFile
from dfssd.datasets.readers.xml_files import read_xml

META = """<version>1.1</version><meta><task><name>plates</name><subset>{subset}</subset><labels>
<label><name> pit </name><color>#fa3253</color><type>any</type><attributes/></label>
<label><name>scratch</name><type>rectangle</type></label>
<label><name>reviewed</name><type>tag</type></label>
<label><name>gauge</name><type>skeleton</type></label>
<label><name>tip</name><type>points</type><parent>gauge</parent></label>
</labels></task></meta>"""


PLAIN = META.format(subset="")


def read(tmp_path, body, meta=PLAIN):
    file = tmp_path / "annotations.xml"
    file.write_text(f"<?xml version='1.0' encoding='utf-8'?><annotations>{meta}{body}</annotations>", encoding="utf-8")
    return read_xml(file)


def image(shapes="", name="cam\\p 1.png", more=""):
    return f'<image id="0" name="{name}" width="64" height="48" {more}>{shapes}</image>'


def annotation(tmp_path, shapes, more=""):
    found = read(tmp_path, image(shapes, more=more))
    assert isinstance(found, LabelFile) and found.format == "cvat" and len(found.annotations) == 1
    return found.annotations[0]


def box(*corners, label="pit", more=""):
    x1, y1, x2, y2 = corners
    return f'<box label="{label}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0" {more}/>'


def test_boxes_names_and_sizes(tmp_path):
    found = read(tmp_path, image(box(1, 2.5, 30, 40) + box(0, 0, 64, 48, label="scratch")) + image(name="b.png"))
    assert isinstance(found, LabelFile) and found.names == ("pit", "scratch") and not found.ordered
    first, second = found.annotations
    assert (first.image, first.labels, first.size) == ("cam/p 1.png", ("pit", "scratch"), (64, 48))
    assert first.boxes.dtype == np.float64 and first.boxes.tolist() == [[1, 2.5, 30, 40], [0, 0, 64, 48]]
    assert first.where == f"{tmp_path / 'annotations.xml'}: image 'cam/p 1.png'" and first.split is None
    assert (second.image, second.labels, second.problem) == ("b.png", (), None)
    assert found.notes == ("1 image without shapes: defect-free",)


R = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (box(10, 10, 30, 20, more='rotation="90.0"'), [15, 5, 25, 25]),
        (box(10, 10, 30, 20, more='rotation="180"'), [10, 10, 30, 20]),
        (box(10, 10, 30, 20, more='rotation="45"'), [20 - 15 * R, 15 - 15 * R, 20 + 15 * R, 15 + 15 * R]),
        (box(0, 10, 30, 20, more='rotation="90"'), [10, 0, 20, 30]),
        (box(0, 0, 30, 10, more='rotation="90"'), [10, 0, 20, 20]),  # stands out of the image
        ('<polygon label="pit" points="1.5,2;30,2;20,40.25"/>', [1.5, 2, 30, 40.25]),
        ('<ellipse label="pit" cx="20" cy="20" rx="10" ry="5"/>', [10, 15, 30, 25]),
        ('<ellipse label="pit" cx="20" cy="20" rx="10" ry="5" rotation="90"/>', [15, 10, 25, 30]),
        ('<mask label="pit" rle="3, 5, 2" left="4" top="6" width="5" height="2"/>', [4, 6, 9, 8]),
    ],
)
def test_all_areas_become_the_box_around_them(tmp_path, shape, expected):
    found = annotation(tmp_path, shape)
    assert found.problem is None
    np.testing.assert_allclose(found.boxes, [expected], atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ('<polyline label="pit" points="1,2;3,4"/>', "the polyline of 'pit' is no area"),
        ('<points label="pit" points="1,2"/>', "the points of 'pit' is no area"),
        ('<skeleton label="gauge"><points label="tip" points="1,2"/></skeleton>', "the skeleton of 'gauge' is no area"),
        ('<cuboid label="pit"/>', "the cuboid of 'pit' is no area"),
        ('<blob label="pit"/>', "the blob of 'pit' is no shape of CVAT for images 1.1"),
        (box(1, 2, 1, 40), "the box of 'pit': it has no area"),
        (box(30, 2, 1, 40), "the box of 'pit': it has no area"),
        (box("x", 2, 1, 40), "the box of 'pit': 'xtl' is 'x', expected a number"),
        (box(1, 2, 30, 40, more='rotation="nan"'), "the box of 'pit': 'rotation' is 'nan', expected a number"),
        (box(1, 2, 30, 40, label=""), "the label of a box is empty"),
        ("<box/>", "the label of a box is None, expected the name of a class"),
        ('<box label="pit"/>', "the box of 'pit': 'xtl' is None, expected a number"),
        ('<polygon label="pit" points="1,2;30,2"/>', "the polygon of 'pit': 'points' is '1,2;30,2', expected x,y"),
        ('<polygon label="pit" points="1,2;30;20,40"/>', "the polygon of 'pit': 'points' is"),
        ('<polygon label="pit" points="1,2;30,2;a,40"/>', "the polygon of 'pit': a coordinate is 'a'"),
        ('<ellipse label="pit" cx="90" cy="20" rx="10" ry="5"/>', "the ellipse of 'pit': its part in the image has no"),
        ('<mask label="pit" left="4" top="6" width="0" height="2"/>', "the mask of 'pit': it has no area"),
    ],
)
def test_a_wrong_shape_is_a_problem_of_its_image(tmp_path, shape, problem):
    found = annotation(tmp_path, box(1, 2, 3, 4) + shape)
    assert found.problem.startswith(problem) and len(found.labels) == len(found.boxes) == 0
    assert found.image == "cam/p 1.png"


def test_tags_are_noted(tmp_path):
    tags = '<tag label="reviewed" source="manual"/>'
    found = read(tmp_path, image(tags) + image(tags + box(1, 2, 3, 4), name="b.png"))
    assert [a.labels for a in found.annotations] == [(), ("pit",)]
    assert found.notes == ("2 tags of whole images ('reviewed') left out", "1 image without shapes: defect-free")


@pytest.mark.parametrize(
    ("subset", "more", "split"),
    [
        ("Train", "", "train"),
        ("", 'subset="Validation"', "val"),
        ("Train", 'subset="Test"', "test"),
        ("Train", 'subset="line 3"', None),
        ("default", "", None),
    ],
)
def test_subsets_are_splits(tmp_path, subset, more, split):
    found = read(tmp_path, image(more=more), META.format(subset=subset))
    assert found.annotations[0].split == split


def test_labels_of_a_project_stand_in_its_meta_data(tmp_path):
    labels = "<labels><label><name>pit</name></label></labels>"
    tasks = "<tasks><task><subset>Train</subset></task><task><subset>Test</subset></task></tasks>"
    found = read(tmp_path, image(), f"<meta><project>{labels}{tasks}</project></meta>")
    assert found.names == ("pit",) and found.annotations[0].split is None
    assert read(tmp_path, image(), "").names is None


def test_a_size_that_is_none(tmp_path):
    found = read(tmp_path, image(box(1, 2, 3, 4)).replace('width="64"', 'width="wide"'))
    assert found.annotations[0].problem.startswith("the width is 'wide', expected a number")
    assert read(tmp_path, image().replace('width="64"', "")).annotations[0].size is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<track id="0" label="pit"><box frame="0"/></track>', "holds tracks of a video; export the task as 'CVAT for"),
        (image(name=" "), "the name of image 1 is ' ', expected the path of an image; export the task again"),
        ("<image", "is not valid XML"),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path, body, problem):
    found = read(tmp_path, body)
    assert isinstance(found, BrokenFile) and found.problem.startswith(problem)


def test_other_annotations_are_no_labels(tmp_path):
    assert isinstance(read(tmp_path, "<note/>", ""), OtherFile)
