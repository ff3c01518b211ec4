"""How images and boxes are written for each annotation tool: as predictions with their scores, never as labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from dfssd.files import write_bytes, write_json, write_text
from dfssd.review import COCO, CVAT, FIFTYONE, LABEL_STUDIO, YOLO
from dfssd.review.proposals import Proposals


@dataclass(frozen=True)
class Offer:
    """An image that is offered to a reviewer.

    Attributes:
        image: Its file.
        name: Its file name in the tool.
        size: (width, height) [px].
        found: The boxes that are shown.
        value: How much it is worth a look, in [0, 1].
        reason: Why, for people.
    """

    image: Path
    name: str
    size: tuple[int, int]
    found: Proposals
    value: float
    reason: str

    def boxes(self) -> Iterator[tuple[int, float, str, tuple[float, float, float, float]]]:
        """Class id, score, which network has found it, and x1, y1, x2, y2 [px] of each box."""
        width, height = self.size
        rows = zip(self.found.classes, self.found.scores, self.found.found_by, self.found.boxes_xywhn, strict=True)
        for class_id, score, by, (x, y, w, h) in rows:
            left, top, right, bottom = (min(max(v, 0.0), 1.0) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            corners = left * width, top * height, right * width, bottom * height
            yield int(class_id), round(float(score), 4), by, corners


@dataclass(frozen=True)
class Format:
    """A way to write a review.

    Attributes:
        write: Writes the files of the boxes to a folder, for class names in id order; not the images.
        images: Folder of the images in it.
        files: What it writes, for people.
        next_step: What a person does with it.
    """

    write: Callable[[Path, Sequence[Offer], Sequence[str]], None]
    images: str
    files: str
    next_step: str


def write_label_studio(folder: Path, offers: Sequence[Offer], names: Sequence[str]) -> None:
    """Tasks with ``predictions`` (``tasks.json``), and the labeling interface (``interface.xml``).

    Images are addresses of local files, relative to the folder, which Label Studio serves.
    """
    write_json(folder / "tasks.json", [_task(offer, names) for offer in offers])
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$reason", size="5")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in names:
        ElementTree.SubElement(labels, "Label", value=name)
    _write_xml(folder / "interface.xml", view, declared=False)


def _task(offer: Offer, names: Sequence[str]) -> dict[str, Any]:
    width, height = offer.size
    results = []
    for number, (class_id, score, by, (x1, y1, x2, y2)) in enumerate(offer.boxes()):
        value = {
            "x": x1 / width * 100,
            "y": y1 / height * 100,
            "width": (x2 - x1) / width * 100,
            "height": (y2 - y1) / height * 100,
            "rotation": 0,
            "rectanglelabels": [names[class_id]],
        }
        results.append(
            {
                "id": f"box{number}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value,
                "score": score,
                "meta": {"text": [f"{by} {score:.2f}"]},
            }
        )
    prediction = {
        "model_version": "dfssd",
        "score": float(offer.found.scores.max(initial=0)),
        "result": results,
    }
    address = f"/data/local-files/?d=images/{quote(offer.name)}"
    data = {"image": address, "value": round(offer.value, 4), "reason": offer.reason}
    return {"data": data, "predictions": [prediction]}


def write_cvat(folder: Path, offers: Sequence[Offer], names: Sequence[str]) -> None:
    """``annotations.xml`` (CVAT for images 1.1), boxes of source "auto", and ``labels.json`` to make a task with."""
    attributes: list[dict[str, Any]] = [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in ("score", "found_by")
    ]
    labels = [{"name": name, "type": "rectangle", "attributes": attributes} for name in names]
    write_json(folder / "labels.json", labels)
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    for key, text in (("name", "review"), ("size", str(len(offers))), ("mode", "annotation")):
        ElementTree.SubElement(task, key).text = text
    listed = ElementTree.SubElement(task, "labels")
    for name in names:
        label = ElementTree.SubElement(listed, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "rectangle"
        kinds = ElementTree.SubElement(label, "attributes")
        for attribute in attributes:
            own = ElementTree.SubElement(kinds, "attribute")
            for key in ("name", "mutable", "input_type"):
                ElementTree.SubElement(own, key).text = str(attribute[key])
    for number, offer in enumerate(offers):
        width, height = map(str, offer.size)
        image = ElementTree.SubElement(root, "image", id=str(number), name=offer.name, width=width, height=height)
        for class_id, score, by, corners in offer.boxes():
            sides = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in corners), strict=True))
            label_of = {"label": names[class_id], "source": "auto", "occluded": "0", **sides, "z_order": "0"}
            box = ElementTree.SubElement(image, "box", label_of)
            ElementTree.SubElement(box, "attribute", name="score").text = f"{score:.4f}"
            ElementTree.SubElement(box, "attribute", name="found_by").text = by
    _write_xml(folder / "annotations.xml", root, declared=True)


def write_coco(folder: Path, offers: Sequence[Offer], names: Sequence[str]) -> None:
    """``annotations.json``: COCO with a ``score`` for each box; categories count from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, offer in enumerate(offers, 1):
        width, height = offer.size
        images.append({"id": image_id, "file_name": offer.name, "width": width, "height": height})
        for class_id, score, by, (x1, y1, x2, y2) in offer.boxes():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id + 1,
                    "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 2),
                    "iscrowd": 0,
                    "score": score,
                    "attributes": {"found_by": by},
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "annotations.json", tree)


def write_yolo(folder: Path, offers: Sequence[Offer], names: Sequence[str]) -> None:
    """``labels/*.txt`` with the score as sixth column, and ``classes.txt``; no YAML: these are no labels yet."""
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in names))
    for offer in offers:
        rows = [
            f"{class_id} {' '.join(f'{value:.6f}' for value in box)} {score:.4f}\n"
            for class_id, score, box in zip(
                offer.found.classes, offer.found.scores, offer.found.boxes_xywhn, strict=True
            )
        ]
        write_text(folder / "labels" / f"{Path(offer.name).stem}.txt", "".join(rows))


def write_fiftyone(folder: Path, offers: Sequence[Offer], names: Sequence[str]) -> None:
    """``labels.json`` of a ``FiftyOneImageDetectionDataset``, with confidences; its images are in ``data``."""
    labels: dict[str, list[dict[str, Any]]] = {}
    for offer in offers:
        width, height = offer.size
        labels[Path(offer.name).stem] = [
            {
                "label": class_id,  # names would be taken for ids, since the classes are listed
                "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
                "confidence": score,
                "attributes": {"found_by": by},
            }
            for class_id, score, by, (x1, y1, x2, y2) in offer.boxes()
        ]
    text = json.dumps({"classes": list(names), "labels": labels}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / "labels.json", f"{text}\n")


def _write_xml(file: Path, root: ElementTree.Element, *, declared: bool) -> None:
    """Write XML; Label Studio, to which it comes as text, refuses one that declares its encoding."""
    ElementTree.indent(root, " ")
    write_bytes(file, ElementTree.tostring(root, encoding="utf-8", xml_declaration=declared) + b"\n")


FORMATS: Mapping[str, Format] = {
    LABEL_STUDIO: Format(
        write_label_studio,
        "images",
        "tasks.json, interface.xml, images/",
        "start Label Studio with this folder as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, import tasks.json",
    ),
    CVAT: Format(
        write_cvat,
        "images",
        "annotations.xml, labels.json, images/",
        "make a task of images/ with the labels of labels.json, then upload annotations.xml (CVAT 1.1)",
    ),
    COCO: Format(write_coco, "images", "annotations.json, images/", "open annotations.json in a tool that reads COCO"),
    YOLO: Format(
        write_yolo, "images", "labels/, classes.txt, images/", "open the folder in a tool that reads YOLO with scores"
    ),
    FIFTYONE: Format(
        write_fiftyone,
        "data",
        "labels.json, data/",
        "load it with fiftyone.Dataset.from_dir as a FiftyOneImageDetectionDataset",
    ),
}
"""Tool -> how a review is written for it."""
