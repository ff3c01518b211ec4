from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from supervision.dataset.formats.pascal_voc import detections_from_xml_obj

from dfssd.datasets.annotations import BrokenFile, LabelFile, OtherFile
from dfssd.datasets.readers.xml_files import read_xml
from tests.datasets.material import voc_xml

OBJECT = (
    "<object><name>{name}</name>{more}<bndbox>"
    "<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def box(*corners, name="pit", more=""):
    return OBJECT.format(*corners, name=name, more=more)


def read(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "plate.xml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_xml(file)


def annotation(tmp_path, text, encoding="utf-8"):
    found = read(tmp_path, text, encoding)
    assert isinstance(found, LabelFile) and found.format == "voc" and found.names is None
    assert len(found.annotations) == 1 and found.annotations[0].image is None
    return found.annotations[0]


def voc(*objects, size="<size><width>64</width><height>48</height><depth>3</depth></size>", more=""):
    return f"<annotation><filename>old name.jpg</filename>{size}{''.join(objects)}{more}</annotation>"


def test_corners_are_1_based_and_the_last_pixel_counts(tmp_path):
    found = annotation(tmp_path, voc(box(1, 1, 32, 24), box(17, 13, 48, 36, name="scratch")))
    assert found.labels == ("pit", "scratch") and found.size == (64, 48) and not found.normalized
    assert found.boxes.dtype == np.float64
    assert found.boxes.tolist() == [[0, 0, 32, 24], [16, 12, 48, 36]]


def test_boxes_are_those_of_supervision(tmp_path):
    rng = np.random.default_rng(0)
    corners = [[*rng.integers(1, 30, 2).tolist(), *rng.integers(31, 49, 2).tolist()] for _ in range(50)]
    text = voc_xml([("pit", *c) for c in corners])
    theirs, _ = detections_from_xml_obj(fromstring(text), [], (64, 48))
    assert np.array_equal(annotation(tmp_path, text).boxes.astype(np.float32), theirs.xyxy)


def test_an_image_without_objects_is_free_of_defects(tmp_path):
    found = annotation(tmp_path, voc())
    assert found.problem is None and found.labels == () and found.boxes.shape == (0, 4)


def test_floats_flags_and_swapped_corners_are_fine(tmp_path):
    flags = "<difficult>1</difficult><truncated>1</truncated><occluded>1</occluded>"
    found = annotation(tmp_path, voc(box("1.5", "2.0", "9.25", "8", more=flags), box(30, 20, 11, 5)))
    assert found.boxes.tolist() == [[0.5, 1, 9.25, 8], [10, 4, 30, 20]]


def test_names_lose_the_white_space_around_them(tmp_path):
    found = annotation(tmp_path, voc(box(1, 1, 9, 9, name="\n    oil spot\n  "), box(1, 1, 9, 9, name="pit\u3000")))
    assert found.labels == ("oil spot", "pit")


def test_the_box_of_a_part_is_not_that_of_the_object(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    polygon = "<polygon><x1>2</x1><y1>2</y1><x2>4</x2><y2>2</y2><x3>4</x3><y3>5</y3></polygon>"
    assert annotation(tmp_path, voc(box(1, 1, 9, 9, more=part + polygon))).boxes.tolist() == [[0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("<size><width>64</width><height>48</height></size>", (64, 48)),
        ("<size><width> 64.0 </width><height>48</height></size>", (64, 48)),
        ("<size><width>0</width><height>0</height></size>", None),
        ("<size><width>64</width></size>", None),
        ("<size><width>64</width><height>x</height></size>", None),
        ("<size><width>64</width><height>inf</height></size>", None),
        ("<size><width>-64</width><height>48</height></size>", None),
        ("", None),
    ],
)
def test_the_size_is_that_of_the_file_if_it_states_one(tmp_path, size, expected):
    found = annotation(tmp_path, voc(box(1, 1, 9, 9), size=size))
    assert found.size == expected and found.problem is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (voc(box(9, 9, "x", 20)), "object 1 ('pit'): xmax 'x' is not a number"),
        (voc(box(9, 9, "nan", 20)), "object 1 ('pit'): xmax 'nan' is not a number"),
        (voc(box(9, 9, "", 20)), "object 1 ('pit'): xmax '' is not a number"),
        (voc(box(1, 1, 9, 9), box(20, 20, 20, 30)), "object 2 ('pit') is a box without area (xmin ymin"),
        (voc(box(1, 1, 9, 9, name=" ")), "the name of object 1 is empty"),
        (voc(box(1, 1, 9, 9).replace("name", "title")), "the name of object 1 is empty"),
        (voc(box(1, 1, 9, 9).replace("bndbox", "robndbox")), "object 1 ('pit') has a rotated box (robndbox)"),
        (voc(box(1, 1, 9, 9).replace("bndbox", "polygon")), "object 1 ('pit') has a polygon and no bndbox"),
        (voc(box(1, 1, 9, 9, name="oil\nspot")), "the name of object 1 is 'oil\\nspot', which holds characters"),
        (voc("<object><name>pit</name></object>"), "object 1 ('pit') has no bndbox, expected one"),
        (voc(box(1, 1, 9, 9, more="<bndbox/>")), "object 1 ('pit') has 2 bndbox, expected one"),
        (voc(more=f"<objects>{box(1, 1, 9, 9)}</objects>"), "has objects or boxes in places"),
        (voc(more="<item><bndbox/></item>"), "has objects or boxes in places"),
        (voc(box(1, 1, 9, 9).replace("object", "Object")), "has objects or boxes in places"),
        ("<annotation><object>", "is not valid XML (no element found: line 1, column 20)"),
        (" \n", "is empty"),
        (b"", "is empty"),
        ('<!DOCTYPE a [<!ENTITY b "boom">]><annotation>&b;</annotation>', "declares the entity 'b'"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd" ><annotation><size/></annotation', "is not valid XML"),
        (voc(box(1, 1, 9, 9, name="划痕")).encode("gbk"), "is not UTF-8 and declares no other encoding"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "is not in the encoding that it declares (klingon)"),
        (b'<?xml version="1.0" encoding="ascii"?><annotation>\xff</annotation>', "is not in the encoding"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_a_problem_of_its_image(tmp_path, text, problem):
    found = annotation(tmp_path, text)
    assert found.problem.startswith(problem)
    assert found.where == str(tmp_path / "plate.xml") and len(found.boxes) == len(found.labels) == 0


@pytest.mark.parametrize("declared", ["gbk", "GB2312", "gb18030", "big5", "utf-8", "UTF-16"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_declared_encoding_is_used(tmp_path, declared, mark):
    text = f"<?xml version='1.0' encoding='{declared}'?>" + voc(box(1, 1, 9, 9, name="亮"))
    encoding = "utf-8" if mark or declared == "UTF-16" else declared  # a declared UTF-16 in plain bytes is not true
    assert annotation(tmp_path, mark + text.encode(encoding)).labels == ("亮",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_byte_order_marks_tell_the_encoding(tmp_path, encoding):
    assert annotation(tmp_path, voc(box(1, 1, 9, 9, name="亮")), encoding).labels == ("亮",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<project><modelVersion>4.0.0</modelVersion></project>", "XML of another kind (<project>)"),
        ("<!-- <annotation> --><project><", "XML of another kind (<project>)"),
        ("<annotation><text>a remark</text></annotation>", "XML without anything of Pascal VOC"),
        ("<annotations><text>a remark</text></annotations>", "XML without anything of CVAT"),
    ],
)
def test_other_xml_is_none_of_our_business(tmp_path, text, reason):
    found = read(tmp_path, text)
    assert isinstance(found, OtherFile) and found.reason == reason


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "<dataset><images><image file='a.jpg'><box top='1'/></image></images></dataset>",
            "holds labels of dlib's imglab",
        ),
        ("<HRSC_Image><HRSC_Objects/></HRSC_Image>", "holds labels of HRSC2016"),
    ],
)
def test_labels_of_formats_that_are_not_read_are_told(tmp_path, text, problem):
    found = read(tmp_path, text)
    assert isinstance(found, BrokenFile) and found.problem.startswith(problem)


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    found = read_xml(tmp_path)
    assert isinstance(found, BrokenFile) and found.problem.startswith("cannot be read (Is a directory)")
