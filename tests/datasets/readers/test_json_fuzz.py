"""Damaged label files never raise: whatever a reader returns is whole, finite and can be written in one line."""

import copy
import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfssd.datasets.annotations import BrokenFile, ClassFile, LabelFile, OtherFile
from dfssd.datasets.readers.json_files import read_json

BOUNDED = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

REGION = {
    "id": "r1",
    "type": "rectanglelabels",
    "original_width": 200,
    "original_height": 50,
    "image_rotation": 0,
    "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 30, "rectanglelabels": ["pit"]},
}
FLAT = REGION["value"] | {"original_width": 200, "original_height": 50}
SOUND = [
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}, {"id": 2, "file_name": "b\\c.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "attributes": {"rotation": 30.0}},
            {"id": 3, "image_id": 2, "category_id": 7, "segmentation": [[1, 2, 9, 2, 9, 8]], "iscrowd": 0},
            {"id": 4, "image_id": 2, "category_id": 7, "bbox": [1, 2, 8, 6], "segmentation": [[1, 2, 9, 2, 9, 8]]},
            {"id": 5, "image_id": 2, "category_id": 7, "iscrowd": 1, "segmentation": {"size": [1, 1], "counts": [1]}},
        ],
        "categories": [{"id": 3, "name": "pit", "supercategory": "none"}, {"id": 7, "name": "dent"}],
    },
    {
        "version": "5.4.1",
        "flags": {},
        "shapes": [
            {"label": "pit", "points": [[1, 2], [3, 4]], "group_id": 1, "shape_type": "rectangle"},
            {"label": "pit", "points": [[5, 6], [8, 9]], "group_id": 1, "shape_type": "circle"},
            {"label": "eye", "points": [[5, 6]], "group_id": 1, "shape_type": "point"},
            {"label": "pit", "points": [[5, 6], [8, 9], [1, 7]], "shape_type": "polygon"},
        ],
        "imagePath": "..\\a.png",
        "imageHeight": 48,
        "imageWidth": 64,
    },
    [
        {"id": 1, "data": {"image": "/data/upload/1/ab-a.png"}, "annotations": [{"id": 2, "result": [REGION]}]},
        {"id": 2, "data": {"image": "/data/local-files/?d=x/a.png"}, "annotations": [{"id": 3, "result": []}]},
    ],
    [{"id": 1, "image": "s3://x/a.png", "label": [FLAT], "annotator": 1, "annotation_id": 2}],
    [{"image": "a.png", "annotations": [{"label": "pit", "coordinates": {"x": 9, "y": 9, "width": 4, "height": 4}}]}],
    {
        "a.png1": {
            "filename": "a.png",
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
                    "region_attributes": {"defect": "pit"},
                },
                {
                    "shape_attributes": {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 5, 3]},
                    "region_attributes": {"defect": "pit"},
                },
            ],
        }
    },
    {"categories": [{"id": 0, "name": "pit"}, {"id": 1, "name": "dent"}], "info": {}},
]

KEYS = sorted({key for text in map(json.dumps, SOUND) for key in text.split('"')[1::2]})

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**3), 10**3),
    st.sampled_from([10**400, -(10**30), 1e308, -1e308, 5e-324, float("nan"), float("inf"), 0, -0.0]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["\ud800", "a\nb", "\x00", "", " ", "..", "a.png", "12", "1e999", "pit", "//", "s3://[", "x?d=%ff"]
    ),
    st.sampled_from(KEYS),
)
values = st.recursive(
    scalars,
    lambda parts: st.one_of(
        st.lists(parts, max_size=4), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), parts, max_size=5)
    ),
    max_leaves=12,
)


def places(value, above=()):
    """The way to each part of a value."""
    for key in range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ():
        yield (*above, key)
        yield from places(value[key], (*above, key))


@st.composite
def damaged(draw):
    """A sound file of some format with up to three parts replaced, removed or written twice."""
    content = copy.deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(content))
        if not ways:
            break
        *way, last = draw(st.sampled_from(ways))
        part = content
        for key in way:
            part = part[key]
        action = draw(st.sampled_from(["replace", "remove", "double"]))
        if action == "replace":
            part[last] = draw(values)
        elif action == "remove":
            del part[last]
        elif isinstance(part, list):
            part.append(copy.deepcopy(part[last]))
        else:
            part[draw(st.sampled_from(KEYS))] = copy.deepcopy(part[last])
    return content


def written(text):
    """Assert that a text can be shown in one line and written to a file."""
    assert isinstance(text, str) and text and not set(text) & set("\n\r\x00")
    text.encode()


def check(data):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.json")
        file.write_bytes(data)
        found = read_json(file)
    if isinstance(found, BrokenFile):
        written(found.problem)
    elif isinstance(found, OtherFile):
        written(found.reason)
    elif isinstance(found, ClassFile):
        assert len(found.names) > 0
        for name in found.names:
            written(name)
    else:
        check_labels(found)
    return found


def check_labels(found):
    assert isinstance(found, LabelFile) and found.annotations
    for text in (*found.notes, *(found.names or ()), *found.parents):
        written(text)
    assert found.parents <= set(found.names or ())
    for annotation in found.annotations:
        written(annotation.where)
        if annotation.image is not None:
            written(annotation.image)
        assert annotation.boxes.dtype == np.float64 and annotation.boxes.shape == (len(annotation.labels), 4)
        if annotation.problem is not None:
            written(annotation.problem)
            continue
        assert np.isfinite(annotation.boxes).all()
        assert (annotation.boxes[:, 2:] > annotation.boxes[:, :2]).all()
        assert annotation.size is None or (min(annotation.size) > 0 and all(type(n) is int for n in annotation.size))
        for label in annotation.labels:
            written(label)
            assert label == label.strip() and (found.names is None or label in found.names)


def test_the_sound_files_are_sound():
    for content in SOUND:
        found = check(json.dumps(content).encode())
        assert isinstance(found, (LabelFile, ClassFile))
        assert all(annotation.problem is None for annotation in getattr(found, "annotations", ()))


@BOUNDED
@given(damaged())
def test_damaged_files(content):
    check(json.dumps(content).encode())


@BOUNDED
@given(values)
def test_any_json(content):
    check(json.dumps(content).encode())


@BOUNDED
@given(st.sampled_from(SOUND), st.data())
def test_damaged_bytes(content, data):
    text = bytearray(json.dumps(content, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
        text = text or bytearray(b" ")
    check(bytes(text))
