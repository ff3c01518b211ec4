"""What is written for each tool, by hand, for one image of 200 x 100 px with two boxes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dfssd.review import TOOLS
from dfssd.review.formats import FORMATS, Offer
from dfssd.review.proposals import proposals
from tests.review.material import found

NAMES = ("pit", "scratch & dent")
MIDDLE = (0.5, 0.5, 0.2, 0.4)
OFFERS = (
    Offer(
        Path("a.png"),
        "0001-a b#1.png",
        (200, 100),
        proposals(found((1, 0.75, MIDDLE)), found((1, 0.5, MIDDLE), (0, 0.25, (0.05, 0.5, 0.1, 1)))),
        0.5,
        "scratch & dent: teacher 0.75, student 0.50",
    ),
    Offer(Path("b.png"), "0002-b.png", (50, 40), proposals(found(), found()), 0.0, "no box found"),
)  # fmt: skip
"""Boxes 80 30 120 70 of both networks, and 0 0 20 100 of the student alone; then an image without a box."""


def test_every_tool_has_a_format() -> None:
    assert tuple(FORMATS) == TOOLS


def test_label_studio(tmp_path: Path) -> None:
    FORMATS["label-studio"].write(tmp_path, OFFERS, NAMES)
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=images/0001-a%20b%231.png",
        "/data/local-files/?d=images/0002-b.png",
    ]
    assert all("annotations" not in task and len(task["predictions"]) == 1 for task in tasks)
    first, second = tasks[0]["predictions"][0]["result"]
    value = first["value"]
    assert [value[key] for key in ("x", "y", "width", "height")] == pytest.approx([40, 30, 20, 40])
    assert value["rectanglelabels"] == ["scratch & dent"] and first["score"] == 0.75
    assert (first["original_width"], first["original_height"], first["type"]) == (200, 100, "rectanglelabels")
    assert second["meta"]["text"] == ["student 0.25"] and tasks[0]["predictions"][0]["score"] == 0.75
    assert tasks[1]["predictions"][0]["result"] == [] and tasks[0]["data"]["reason"].startswith("scratch & dent:")
    text = (tmp_path / "interface.xml").read_text(encoding="utf-8")
    assert not text.startswith("<?xml")  # Label Studio refuses a declared encoding
    view = ElementTree.fromstring(text)
    labels = view.find("RectangleLabels")
    image = view.find("Image")
    assert labels is not None and image is not None
    assert [label.get("value") for label in labels] == list(NAMES)
    assert (labels.get("name"), labels.get("toName")) == (first["from_name"], first["to_name"])
    assert image.get("name") == first["to_name"] and image.get("value") == "$image"


def test_cvat(tmp_path: Path) -> None:
    FORMATS["cvat"].write(tmp_path, OFFERS, NAMES)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    images = root.findall("image")
    assert [image.get("name") for image in images] == ["0001-a b#1.png", "0002-b.png"]
    assert (images[0].get("width"), images[0].get("height"), len(images[1])) == ("200", "100", 0)
    boxes = images[0].findall("box")
    assert [boxes[0].get(side) for side in ("xtl", "ytl", "xbr", "ybr")] == ["80.00", "30.00", "120.00", "70.00"]
    assert [box.get("source") for box in boxes] == ["auto", "auto"] and boxes[0].get("label") == "scratch & dent"
    assert {a.get("name"): a.text for a in boxes[1]} == {"score": "0.2500", "found_by": "student"}
    labels = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert [label["name"] for label in labels] == list(NAMES)
    assert [a["name"] for a in labels[0]["attributes"]] == ["score", "found_by"]
    assert [label.findtext("name") for label in root.iter("label")] == list(NAMES)


def test_coco(tmp_path: Path) -> None:
    FORMATS["coco"].write(tmp_path, OFFERS, NAMES)
    tree = json.loads((tmp_path / "annotations.json").read_text(encoding="utf-8"))
    assert tree["images"][0] == {"id": 1, "file_name": "0001-a b#1.png", "width": 200, "height": 100}
    assert [image["id"] for image in tree["images"]] == [1, 2]
    first, second = tree["annotations"]
    assert first["bbox"] == [80, 30, 40, 40] and first["area"] == 1600 and first["score"] == 0.75
    assert (first["image_id"], first["category_id"], second["category_id"]) == (1, 2, 1)
    assert tree["categories"] == [{"id": 1, "name": "pit"}, {"id": 2, "name": "scratch & dent"}]


def test_yolo(tmp_path: Path) -> None:
    FORMATS["yolo"].write(tmp_path, OFFERS, NAMES)
    assert (tmp_path / "classes.txt").read_text(encoding="utf-8") == "pit\nscratch & dent\n"
    assert (tmp_path / "labels" / "0001-a b#1.txt").read_text(encoding="utf-8").splitlines() == [
        "1 0.500000 0.500000 0.200000 0.400000 0.7500",
        "0 0.050000 0.500000 0.100000 1.000000 0.2500",
    ]
    assert (tmp_path / "labels" / "0002-b.txt").read_text(encoding="utf-8") == ""


def test_fiftyone(tmp_path: Path) -> None:
    """As its documentation says: ids where classes are listed, and [left, top, width, height] in 0-1."""
    FORMATS["fiftyone"].write(tmp_path, OFFERS, NAMES)
    tree = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    assert tree["classes"] == list(NAMES) and list(tree["labels"]) == ["0001-a b#1", "0002-b"]
    first, second = tree["labels"]["0001-a b#1"]
    assert (first["label"], second["label"]) == (1, 0) and first["confidence"] == 0.75
    assert first["bounding_box"] == pytest.approx([0.4, 0.3, 0.2, 0.4])
    assert second["bounding_box"] == pytest.approx([0, 0, 0.1, 1]) and tree["labels"]["0002-b"] == []


def test_boxes_stay_in_the_image(tmp_path: Path) -> None:
    """Rounding may let a box reach over the edge, which some tools refuse."""
    beyond = proposals(found((0, 0.5, (0.95, 0.05, 0.100002, 0.100002))), None)
    offer = Offer(Path("a.png"), "0001-a.png", (200, 100), beyond, 0.5, "")
    [(_, _, _, corners)] = offer.boxes()
    assert corners[1] == 0 and corners[2] == 200
