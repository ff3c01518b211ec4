"""What a person makes of an exported folder in each tool, written as the tool exports it.

The person replaces the boxes of the first image, finds the second one free of defects, and agrees with the third.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.conftest import NAMES

DRAWN = [(1, 4.0, 6.0, 20.0, 30.0), (0, 32.0, 16.0, 64.0, 48.0)]
"""Class id and corners [px] of what the person draws into the first image, of 64 x 64 px."""


def label_studio_task(task: dict[str, Any], number: int) -> dict[str, Any]:
    """A task of :func:`label_studio` with its annotation; as the server writes it, as far as it matters."""
    confirmed = [dict(region) for region in task["predictions"][0]["result"]]
    results = [regions(), [], confirmed][number]
    return {"id": number + 1, **task, "annotations": [{"id": number + 1, "was_cancelled": False, "result": results}]}


def regions() -> list[dict[str, Any]]:
    """:data:`DRAWN` as regions of Label Studio."""
    return [
        {
            "id": f"new{number}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": 64,
            "original_height": 64,
            "image_rotation": 0,
            "value": {
                "x": x1 / 0.64,
                "y": y1 / 0.64,
                "width": (x2 - x1) / 0.64,
                "height": (y2 - y1) / 0.64,
                "rotation": 0,
                "rectanglelabels": [NAMES[class_id]],
            },
        }
        for number, (class_id, x1, y1, x2, y2) in enumerate(DRAWN)
    ]


def label_studio(review: Path, out: Path) -> Path:
    """The export "JSON" of a project; a fourth task was skipped."""
    tasks = json.loads((review / "tasks.json").read_text(encoding="utf-8"))
    done = [label_studio_task(task, number) for number, task in enumerate(tasks[:3])]
    for task in tasks[3:4]:
        done.append({"id": 4, **task, "annotations": [{"id": 4, "was_cancelled": True, "result": []}]})
    (out / "project-1.json").write_text(json.dumps(done), encoding="utf-8")
    return out / "project-1.json"


def cvat(review: Path, out: Path) -> Path:
    """The export "CVAT for images 1.1", a zip file, of a task from which the other images were removed."""
    root = ElementTree.parse(review / "annotations.xml").getroot()
    images = root.findall("image")
    for image in images[3:]:
        root.remove(image)
    for image in images[:2]:
        for box in list(image):
            image.remove(box)
    for class_id, *corners in DRAWN:
        sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, corners), strict=True))
        ElementTree.SubElement(images[0], "box", {"label": NAMES[class_id], "source": "manual", **sides})
    (out / "task").mkdir()
    ElementTree.ElementTree(root).write(out / "task" / "annotations.xml", encoding="utf-8")
    return Path(shutil.make_archive(str(out / "task"), "zip", out / "task"))


def coco_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """A COCO file of all images with the work of the person; ids may begin anywhere."""
    ids = [image["id"] for image in tree["images"]]
    kept = [own for own in tree["annotations"] if own["image_id"] == ids[2]]
    first = {category["name"]: category["id"] for category in tree["categories"]}
    drawn = [
        {"image_id": ids[0], "category_id": first[NAMES[c]], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for c, x1, y1, x2, y2 in DRAWN
    ]
    boxes = [{**own, "id": 70 + number} for number, own in enumerate([*kept, *drawn])]
    return {**tree, "images": tree["images"][:3], "annotations": boxes}


def coco(review: Path, out: Path) -> Path:
    """A COCO file; the tool has kept the scores."""
    tree = json.loads((review / "annotations.json").read_text(encoding="utf-8"))
    (out / "corrected.json").write_text(json.dumps(coco_tree(tree)), encoding="utf-8")
    return out / "corrected.json"


def yolo(review: Path, out: Path) -> Path:
    """A folder of YOLO labels with the classes in another order, as Label Studio sorts them; scores are half gone."""
    (out / "yolo" / "labels").mkdir(parents=True)
    (out / "yolo" / "classes.txt").write_text("\n".join(NAMES[::-1]) + "\n", encoding="utf-8")
    for number, file in enumerate(sorted((review / "labels").iterdir())[:3]):
        rows = [[str(1 - int(row.split()[0])), *row.split()[1:]] for row in file.read_text().splitlines()]
        if number == 0:
            rows = [
                [str(1 - c), *(f"{v / 64:.6f}" for v in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))]
                for c, x1, y1, x2, y2 in DRAWN
            ]
        lines = [] if number == 1 else [" ".join(row) for row in rows]
        (out / "yolo" / "labels" / file.name).write_text("\n".join(lines), encoding="utf-8")
    return out / "yolo"


def fiftyone(review: Path, out: Path) -> Path:
    """The same as COCO, in which FiftyOne exports what it has imported; sizes are those of the images."""
    tree = json.loads((review / "labels.json").read_text(encoding="utf-8"))
    images = [
        {"id": number, "file_name": f"data/{name}.png", "width": 64, "height": 64}
        for number, name in enumerate(tree["labels"], 1)
    ]
    boxes = [
        {"image_id": number, "category_id": own["label"], "bbox": [64 * v for v in own["bounding_box"]], "iscrowd": 0}
        for number, found in enumerate(tree["labels"].values(), 1)
        for own in found
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(tree["classes"])]
    whole = coco_tree({"images": images, "annotations": boxes, "categories": categories})
    (out / "labels.json").write_text(json.dumps(whole), encoding="utf-8")
    return out / "labels.json"


WORK: Mapping[str, Callable[[Path, Path], Path]] = {
    "label-studio": label_studio,
    "cvat": cvat,
    "coco": coco,
    "yolo": yolo,
    "fiftyone": fiftyone,
}
"""Tool -> what a person does: (exported folder, folder for the result) -> the file to import."""
