"""Create ML: boxes by center and size."""

import json
import re

import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile
from dfssd.datasets.readers.json_files import read_json


def image(*annotations, name="a.png"):
    return {"image": name, "verified": False, "annotations": list(annotations)}


def box(x=20, y=35.5, width=20, height=30, label="pit"):
    return {"label": label, "coordinates": {"x": x, "y": y, "width": width, "height": height}}


@pytest.fixture
def read(tmp_path):
    def from_content(content):
        file = tmp_path / "_annotations.createml.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return read_json(file)

    return from_content


def test_centers_and_sizes_become_corners(read):
    found = read([image(box(), box(label="dent")), image(name="b.png")])
    assert isinstance(found, LabelFile) and (found.format, found.names) == ("createml", None)
    a, b = found.annotations
    assert (a.image, a.labels, a.boxes.tolist()) == ("a.png", ("pit", "dent"), [[10, 20.5, 30, 50.5]] * 2)
    assert (b.image, b.boxes.shape, b.problem) == ("b.png", (0, 4), None)
    (older,) = read([{"imagefilename": "a.png", "annotation": [box()]}]).annotations
    assert older.boxes.tolist() == [[10, 20.5, 30, 50.5]]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (box(width=0), "annotation 2: the box with width 0 and height 30 has no area"),
        (box(x=None), "annotation 2: 'x' is None, expected a number"),
        (box(label=""), "annotation 2: 'label' is empty"),
        ({"label": "pit"}, "annotation 2: {'label': 'pit'} has no 'coordinates'"),
        (7, "annotation 2: 7 has no 'coordinates'"),
    ],
)
def test_a_wrong_box_is_the_problem_of_its_image(read, broken, problem):
    a, b = read([image(box(), broken), image(box(), name="b.png")]).annotations
    assert a.problem.startswith(problem) and a.where.endswith(": image 'a.png'")
    assert b.problem is None


@pytest.mark.parametrize(
    ("entry", "problem"),
    [(7, "entry 2 is 7, expected an image"), (image(name=""), "the image of entry 2 is '', expected the path")],
)
def test_a_damaged_file_is_broken(read, entry, problem):
    found = read([image(box()), entry])
    assert isinstance(found, BrokenFile) and re.match(f"is not valid Create ML: {problem}", found.problem)
