"""Readers of XML, CSV and text files, fed with damaged ones: always an answer, and one that holds together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dfssd.datasets.annotations import BrokenFile, ClassFile, Found, LabelFile, OtherFile, SplitFile
from dfssd.datasets.label_files import format_labels
from dfssd.datasets.readers.csv_files import read_csv
from dfssd.datasets.readers.text_files import read_text
from dfssd.datasets.readers.xml_files import read_xml
from dfssd.datasets.readers.yolo import read_yolo
from tests.datasets.material import voc_xml

XML = (
    voc_xml([("pit", 1, 1, 32, 24), ("oil spot", 17, 13, 48, 36)]),
    "<?xml version='1.0' encoding='gbk'?>" + voc_xml([("pit", 1, 1, 32, 24)]),
    '<annotations><meta><task><subset>Train</subset><labels><label><name>pit</name></label></labels></task></meta>'
    '<image id="0" name="a.png" width="64" height="48"><box label="pit" xtl="1" ytl="2" xbr="3" ybr="4" rotation="30"/>'
    '<polygon label="pit" points="1,2;3,4;5,1"/><ellipse label="pit" cx="9" cy="9" rx="3" ry="2"/>'
    '<mask label="pit" left="1" top="1" width="4" height="5"/><tag label="ok"/></image></annotations>',
)  # fmt: skip
CSV = (
    "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,pit,1,2,30,40\nb.png,64,48,,,,,\n",
    "image;label;x;y;w;h\na.png;1;0;0;30,5;20\na.png;0;1;1;30;20\n",
    "a.png,1,2,30,40,pit\nb.png,,,,,\n",
    "filename,region_shape_attributes,region_attributes\n"
    'a.png,"{""name"":""rect"",""x"":1,""y"":2,""width"":3,""height"":4}","{""class"":""pit""}"\n',
)
TEXT = (
    "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.2 0.2\n",
    "0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n",
    "0 0.7 0.6 0.1 0.12 0.69 0.6 2 0.72 0.62 1\n",
    "images/a.png\nimages\\b.png\n",
    "000005\n000007\n",
    "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
    "a.png 1,2,3,4,0 5,6,7,8,1\n",
)
NAMES = ("a", "train", "classes", "trainval", "README")

piece = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"<", b">", b"/", b'"', b",", b";", b"\n", b"\0", b"nan", b"1e999", b"-1", b"\xff\xfe", b"&b;"]),
)


@st.composite
def damaged(draw: st.DrawFn, texts: tuple[str, ...]) -> bytes:
    """Bytes of a sound file with parts cut out, doubled or replaced; sometimes anything."""
    content = draw(st.sampled_from(texts)).encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gbk"])))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 20)))
        middle = draw(st.one_of(piece, st.just(content[start:end] * 2)))
        content = content[:start] + middle + content[end:]
    return draw(st.one_of(st.just(content), st.binary(max_size=60))) if draw(st.booleans()) else content


def check(found: Found) -> None:
    """What holds for every answer of a reader."""
    if isinstance(found, BrokenFile):
        assert found.problem and "\n" not in found.problem
    elif isinstance(found, OtherFile):
        assert found.reason and "\n" not in found.reason
    elif isinstance(found, ClassFile):
        assert all(name == name.strip() and name for name in found.names)
    elif isinstance(found, SplitFile):
        assert found.images and all(found.images)
    elif isinstance(found, LabelFile):
        assert all("\n" not in note for note in found.notes)
        for annotation in found.annotations:
            assert annotation.boxes.dtype == np.float64 and annotation.boxes.shape == (len(annotation.labels), 4)
            if annotation.problem is not None:
                assert annotation.problem and "\n" not in annotation.where + annotation.problem
                assert not annotation.labels
                continue
            assert np.isfinite(annotation.boxes).all() and annotation.image != ""
            assert all(isinstance(label, int) or label == label.strip() != "" for label in annotation.labels)
            assert annotation.size is None or min(annotation.size) > 0
            if annotation.normalized:
                x, y, w, h = annotation.boxes.T
                assert (w > 0).all() and (h > 0).all()
                assert (np.abs(x - 0.5) + w / 2 <= 0.5 + 1e-9).all() and (np.abs(y - 0.5) + h / 2 <= 0.5 + 1e-9).all()
            else:
                assert (annotation.boxes[:, 2:] > annotation.boxes[:, :2]).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


budget = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@budget
@given(damaged(XML))
def test_any_xml_is_answered(folder, content) -> None:
    file = folder / "a.xml"
    file.write_bytes(content)
    check(read_xml(file))


@budget
@given(damaged(CSV), st.sampled_from(["a.csv", "classes.csv"]))
def test_any_table_is_answered(folder, content, name) -> None:
    file = folder / name
    file.write_bytes(content)
    check(read_csv(file))


@budget
@given(damaged(TEXT), st.sampled_from(NAMES), st.sampled_from([None, (2, 2), (2, 3)]))
def test_any_text_is_answered(folder, content, name, keypoints) -> None:
    file = folder / f"{name}.txt"
    file.write_bytes(content)
    check(read_text(file, keypoints))
    check(read_yolo(file, keypoints))


side = st.floats(1e-3, 0.5)
inner = st.tuples(st.floats(0.25, 0.75), st.floats(0.25, 0.75), side, side)


@given(st.lists(st.tuples(st.integers(0, 9), inner), max_size=6, unique=True))
def test_labels_keep_every_bit(folder, rows) -> None:
    file = folder / "exact.txt"
    boxes = np.array([[c, *b] for c, b in rows], np.float32).reshape(-1, 5)
    file.write_text(format_labels(boxes), encoding="utf-8")
    (found,) = read_yolo(file).annotations
    read = np.column_stack([found.labels, found.boxes]).astype(np.float32).reshape(-1, 5)
    assert np.array_equal(read, np.array(list(dict.fromkeys(map(tuple, boxes.tolist()))), np.float32).reshape(-1, 5))


number = st.one_of(st.integers(-5, 70), st.floats(-5, 70).map(lambda v: round(v, 3)))


@given(
    st.lists(st.tuples(st.sampled_from(["pit", "oil spot"]), number, number, number, number), min_size=1, max_size=5)
)
def test_voc_and_csv_of_the_same_boxes_differ_by_the_first_pixel_only(folder, rows) -> None:
    (folder / "b.xml").write_text(voc_xml(rows), encoding="utf-8")
    table = "".join(f"b.png,{name},{x1},{y1},{x2},{y2}\n" for name, x1, y1, x2, y2 in rows)
    (folder / "b.csv").write_text("filename,class,xmin,ymin,xmax,ymax\n" + table, encoding="utf-8")
    (voc,), (csv,) = read_xml(folder / "b.xml").annotations, read_csv(folder / "b.csv").annotations
    if csv.problem is None and not csv.normalized:
        assert voc.labels == csv.labels
        np.testing.assert_array_equal(voc.boxes + np.array([1, 1, 0, 0]), csv.boxes)
    if any(x1 == x2 or y1 == y2 for _, x1, y1, x2, y2 in rows):
        assert voc.problem and "without area" in voc.problem and csv.problem
    elif all(math.isfinite(v) for row in rows for v in row[1:]):
        assert voc.problem is None
