"""COCO as people have it: what is read, what becomes the problem of one image, what makes a file unusable."""

import copy
import json
import re

import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile, OtherFile
from dfssd.datasets.readers.json_files import read_json

SQUARE = [10, 20, 30, 20, 30, 50, 10, 50]  # the polygon of the first box


def sound():
    return {
        "images": [
            {"id": 4, "file_name": "a.png", "width": 64, "height": 96},
            {"id": 9, "file_name": "part\\b.png", "width": 0, "height": 0},
            {"id": 2, "file_name": "c.png"},
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 7, "bbox": [10, 20, 20, 30]},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0.5, 1.25, 2.25, 3]},
            {"id": 3, "image_id": 4, "category_id": 3, "bbox": [1, 2, 3, 4]},
        ],
        "categories": [{"id": 7, "name": "scratch"}, {"id": 3, "name": " pit "}],
    }


@pytest.fixture
def read(tmp_path):
    def from_content(content):
        file = tmp_path / "labels.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return read_json(file)

    return from_content


def changed(change):
    content = sound()
    change(content)
    return content


def by_image(found):
    assert isinstance(found, LabelFile), found
    return {annotation.image: annotation for annotation in found.annotations}


def test_boxes_become_corners_and_ids_become_names(read):
    found = read(sound())
    assert (found.format, found.names, found.ordered, found.notes) == ("coco", ("pit", "scratch"), False, ())
    images = by_image(found)
    assert list(images) == ["a.png", "part/b.png", "c.png"]
    assert images["a.png"].labels == ("scratch", "pit")
    assert images["a.png"].boxes.tolist() == [[10, 20, 30, 50], [1, 2, 4, 6]]
    assert images["part/b.png"].boxes.tolist() == [[0.5, 1.25, 2.75, 4.25]]
    assert [a.size for a in found.annotations] == [(64, 96), None, None]
    assert images["a.png"].where.endswith("labels.json: image 'a.png'")
    assert all(a.problem is None and a.split is None and not a.normalized for a in found.annotations)


def test_an_image_without_annotations_is_free_of_defects(read):
    c = by_image(read(sound()))["c.png"]
    assert c.boxes.shape == (0, 4) and c.labels == () and c.problem is None


def test_a_file_without_any_annotation_says_so(read):
    found = read(changed(lambda c: c.update(annotations=[])))
    assert found.notes == ("no annotation at all: its 3 images count as defect-free",)
    assert len(found.annotations) == 3


@pytest.mark.parametrize(
    ("change", "box"),
    [
        (lambda a: a.update(segmentation=[SQUARE]), [10, 20, 30, 50]),
        (lambda a: a.update(bbox=None, segmentation=[SQUARE]), [10, 20, 30, 50]),
        (lambda a: a.update(bbox=[], segmentation=SQUARE), [10, 20, 30, 50]),
        (lambda a: a.update(bbox=None, segmentation=[SQUARE, [2, 3, 2, 5, 40, 4.5]]), [2, 3, 40, 50]),
        (lambda a: a.update(segmentation={"size": [96, 64], "counts": [0, 600]}), [10, 20, 30, 50]),
        (lambda a: a.update(bbox=["10", "20.0", "2e1", "30"]), [10, 20, 30, 50]),
        (lambda a: a.update(iscrowd=0, ignore=0, area=600), [10, 20, 30, 50]),
        (lambda a: a.update(image_id="4", category_id=7.0), [10, 20, 30, 50]),
        # 20 x 30 around (20, 35): a quarter turn swaps the sides; 30 degrees: |20 cos| + |30 sin|, |20 sin| + |30 cos|
        (lambda a: a.update(attributes={"rotation": 90.0}), [5, 25, 35, 45]),
        (lambda a: a.update(attributes={"rotation": -330}), [3.839746, 17.009619, 36.160254, 52.990381]),
        (lambda a: a.update(attributes={"rotation": 0.0}), [10, 20, 30, 50]),
        (lambda a: a.update(attributes={"rotation": "steep"}), [10, 20, 30, 50]),
        (lambda a: a.update(attributes={"rotation": 90}, segmentation=[SQUARE]), [10, 20, 30, 50]),
    ],
)
def test_forms_of_a_box(read, change, box):
    found = read(changed(lambda c: change(c["annotations"][0])))
    np.testing.assert_allclose(by_image(found)["a.png"].boxes[0], box, atol=1e-6)


def test_turned_boxes_are_told(read):
    found = read(changed(lambda c: c["annotations"][0].update(attributes={"rotation": 12})))
    assert found.notes == ("1 turned box: the upright box around each is taken",)


def test_crowd_regions_are_left_out(read):
    crowd = {"segmentation": {"size": [96, 64], "counts": [0, 6144]}, "bbox": [0, 0, 64, 96], "iscrowd": 1}

    def change(c):
        c["annotations"][0].update(crowd)
        c["annotations"][1].update(crowd, category_id=99)  # as in exports where the category of a crowd is gone

    found = read(changed(change))
    # b.png holds nothing but a crowd: it is not free of defects, so the file does not speak about it
    assert [(a.image, a.labels) for a in found.annotations] == [("a.png", ("pit",)), ("c.png", ())]
    assert found.notes == (
        "2 crowd regions (iscrowd) left out",
        "1 image with nothing else (part/b.png): unlabeled",
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda a: a.update(bbox=[1, 1, -8, 8]), r"annotation 1: 'bbox' 1 1 -8 8 has no area \(width -8, height 8\)"),
        (lambda a: a.update(bbox=[1, 1, 8, 0]), "annotation 1: 'bbox' 1 1 8 0 has no area"),
        (lambda a: a.update(bbox=[1, 1, float("nan"), 8]), "'bbox' is NaN"),
        (lambda a: a.update(bbox=[1, 1, float("inf"), 8]), "'bbox' is infinite"),
        (lambda a: a.update(bbox=[1, 1, 10**400, 8]), "'bbox' is infinite"),
        (lambda a: a.update(bbox=[1e308, 1, 1e308, 8]), "'bbox' .* has numbers that are too large"),
        (lambda a: a.update(bbox=[1, 1, 8]), "'bbox' has 3 values, expected 4"),
        (lambda a: a.update(bbox=[1, 1, 8, 8, 30]), "'bbox' has 5 values"),
        (lambda a: a.update(bbox=[1, 1, "wide", 8]), "'bbox' is 'wide', expected a number"),
        (lambda a: a.update(bbox=[1, 1, True, 8]), "'bbox' is True"),
        (lambda a: a.update(bbox={"x": 1}), "'bbox' is {'x': 1}, expected a list"),
        (lambda a: a.pop("bbox"), "'bbox' is missing, and there is no polygon"),
        (lambda a: a.update(bbox=None, segmentation={"counts": "x"}), "'bbox' is missing.*write 'bbox'"),
        (lambda a: a.update(bbox=None, segmentation=[[1, 1, 9, 9]]), "polygon has 4 values"),
        (lambda a: a.update(bbox=None, segmentation=[[1, 1, 9, 1, 9, 9, 1]]), "polygon has 7 values, expected pairs"),
        (lambda a: a.update(bbox=None, segmentation=[[1, 1, 9, 1, 5, 1]]), "its polygon has no area"),
        (lambda a: a.update(category_id=5), "annotation 1: category_id 5 is not among the categories"),
        (lambda a: a.pop("category_id"), "'category_id' is missing"),
        (lambda a: a.update(category_id=[7]), r"'category_id' is \[7\]"),
        (lambda a: a.update(iscrowd="no"), "'iscrowd' is 'no'"),
        # x1, y1, x2, y2: nothing but the polygon tells
        (lambda a: a.update(bbox=[10, 20, 30, 50], segmentation=[SQUARE]), "'bbox' 10 20 30 50 holds corners"),
        (lambda a: a.update(bbox=[20, 35, 20, 30], segmentation=[SQUARE]), "'bbox' 20 35 20 30 holds a center"),
        (lambda a: a.update(bbox=[40, 60, 9, 9], segmentation=[SQUARE]), "polygon .* lie in different places"),
    ],
)
def test_a_wrong_annotation_is_the_problem_of_its_image(read, change, problem):
    images = by_image(read(changed(lambda c: change(c["annotations"][0]))))
    assert re.search(problem, images["a.png"].problem or ""), images["a.png"].problem
    assert "\n" not in images["a.png"].problem
    assert images["part/b.png"].problem is None and len(images["part/b.png"].boxes) == 1


@pytest.mark.parametrize("width", [-64, 64.5, "wide", [64], True])
def test_a_wrong_size_is_the_problem_of_its_image(read, width):
    images = by_image(read(changed(lambda c: c["images"][0].update(width=width))))
    assert "the width is" in images["a.png"].problem


def test_sizes_that_nothing_is_known_of(read):
    for size in ({"width": None}, {"width": 0, "height": 96}, {"width": "", "height": ""}):
        assert by_image(read(changed(lambda c, s=size: c["images"][0].update(s))))["a.png"].size is None
    assert by_image(read(changed(lambda c: c["images"][0].update(width="64", height=96.0))))["a.png"].size == (64, 96)


def test_one_id_for_two_images_is_a_problem_of_both(read):
    images = by_image(read(changed(lambda c: c["images"][2].update(id=4))))
    assert (
        images["a.png"].problem
        == images["c.png"].problem
        == ("id 4 is that of 'a.png' and 'c.png'; give each image its own id")
    )
    assert images["part/b.png"].problem is None


def test_an_entry_that_is_written_twice_counts_once(read):
    found = read(changed(lambda c: c["images"].append(copy.copy(c["images"][0]))))
    assert [a.image for a in found.annotations] == ["a.png", "part/b.png", "c.png"]
    twice = read(changed(lambda c: c["images"].append({**c["images"][0], "width": 32})))
    assert re.fullmatch("it is listed twice, as (64x96 and 32x96|32x96 and 64x96) px", twice.annotations[0].problem)


def test_one_name_with_two_ids_is_read_twice_and_told_apart(read):
    found = read(changed(lambda c: c["images"][2].update(file_name="a.png")))
    assert [(a.image, len(a.boxes), a.where.split(": ")[1]) for a in found.annotations if a.image == "a.png"] == [
        ("a.png", 2, "image 'a.png' (id 4)"),
        ("a.png", 0, "image 'a.png' (id 2)"),
    ]


def test_a_parent_category_is_marked(read):
    def change(c):
        c["categories"] = [{"id": 0, "name": "defects", "supercategory": "none"}] + [
            {**category, "supercategory": "defects"} for category in c["categories"]
        ]

    found = read(changed(change))
    assert (found.names, found.parents) == (("defects", "pit", "scratch"), {"defects"})


def test_a_class_that_is_called_like_its_supercategory_is_none(read):
    def change(c):
        for category in c["categories"]:
            category["supercategory"] = category["name"]

    found = read(changed(change))
    assert (found.names, found.parents) == (("pit", "scratch"), frozenset())


def test_a_parent_that_is_called_like_its_only_class(read):
    def change(c):
        c["categories"][:1] = [
            {"id": 0, "name": "scratch", "supercategory": "none"},
            {"id": 7, "name": "scratch", "supercategory": "scratch"},
        ]

    found = read(changed(change))
    assert (found.names, found.parents) == (("scratch", "pit"), frozenset())
    assert by_image(found)["a.png"].labels == ("scratch", "pit")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda c: c["annotations"][0].update(image_id=5),
            "1 annotation for image_id 5, which is not among the images",
        ),
        (lambda c: c["annotations"][0].pop("image_id"), r"'image_id' of annotations\[0\] is missing"),
        (lambda c: c["annotations"].append("x"), r"annotations\[3\] is 'x', expected an object"),
        (lambda c: c["images"][0].pop("file_name"), r"'file_name' of images\[0\] is missing"),
        (lambda c: c["images"][0].update(file_name="a/"), r"'file_name' of images\[0\] is 'a/'"),
        (lambda c: c["images"][0].update(file_name="a\nb.png"), "characters that no path has"),
        (lambda c: c["images"][0].update(file_name=7), r"'file_name' of images\[0\] is 7"),
        (lambda c: c["images"][0].pop("id"), r"'id' of images\[0\] is missing"),
        (lambda c: c.pop("images"), "'images' is missing"),
        (lambda c: c.pop("categories"), "'categories' is missing"),
        (lambda c: c.update(annotations={}), "'annotations' is {}, expected a list"),
        (lambda c: c["categories"][0].update(name="pit"), "categories 3 and 7 have the same name 'pit'"),
        (lambda c: c["categories"][0].update(name=""), "the name of category 7 is empty"),
        (lambda c: c["categories"][0].update(name="\ud800"), "characters that cannot be written"),
        (lambda c: c["categories"][0].update(name=None), "the name of category 7 is None"),
        (lambda c: c["categories"][0].update(id=3), "category id 3 is that of 'scratch' and 'pit'"),
        (lambda c: c["categories"][0].update(id=None), r"'id' of categories\[0\] is missing"),
        (lambda c: [a.update(bbox=[0.1, 0.2, 0.3, 0.4]) for a in c["annotations"]], "all boxes lie within 0 to 1"),
        (
            lambda c: [a.update(bbox=[10, 20, 30, 50], area=600) for a in c["annotations"]],
            "'bbox' holds corners, as 'area' shows",
        ),
    ],
)
def test_a_damaged_file_is_broken(read, change, problem):
    found = read(changed(change))
    assert isinstance(found, BrokenFile), found
    assert re.search(rf"^is not valid COCO: .*{problem}.*; export it again", found.problem), found.problem


def test_areas_of_masks_are_no_evidence_of_corners(read):
    found = read(changed(lambda c: [a.update(area=1.5) for a in c["annotations"]]))
    assert len(by_image(found)["a.png"].boxes) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"images": [], "annotations": [], "categories": []}, "it lists no images"),
        ({"images": [{"id": 1, "file_name": "a.png"}], "categories": []}, "it lists images without annotations"),
        (
            {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "a dog"}]},
            "its annotations have no boxes and no categories",
        ),
    ],
)
def test_files_of_the_family_that_hold_no_labels(read, content, reason):
    found = read(content)
    assert isinstance(found, OtherFile) and found.reason == reason


@pytest.mark.parametrize(
    ("file_name", "image"),
    [
        (".\\line 3\\a.png", "line 3/a.png"),
        ("D:\\line3\\\\a.png", "D:/line3/a.png"),
        ("../line3/a.png", "../line3/a.png"),
        ("http://images.org/train2017/a%20b.png?size=1", "train2017/a b.png"),
        ("/data/upload/1/8c1b2a3d-a.png", "8c1b2a3d-a.png"),  # COCO of Label Studio
        ("100%25.png", "100%25.png"),
        (" a.png ", "a.png"),
    ],
)
def test_the_path_of_an_image(read, file_name, image):
    assert image in by_image(read(changed(lambda c: c["images"][0].update(file_name=file_name))))


def test_images_that_have_an_address_only(read):
    images = read(changed(lambda c: c["images"][0].update(coco_url="http://x/train/a.png", file_name=None)))
    assert isinstance(images, BrokenFile)  # a name that is null is an error, not a hint
    content = sound()
    content["images"][0].pop("file_name")
    content["images"][0]["coco_url"] = "http://images.org/train2017/a.png"
    assert "train2017/a.png" in by_image(read(content))
