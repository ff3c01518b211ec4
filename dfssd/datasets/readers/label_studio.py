"""Label Studio: exports as JSON and JSON-MIN, and the files of its cloud storage; positions in percent of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, ClassFile, Found, LabelFile, OtherFile
from dfssd.datasets.readers.json_values import (
    Box,
    Point,
    Unusable,
    box_around,
    box_around_ellipse,
    clipped,
    first_of,
    image_name,
    name_of,
    number,
    path_of,
    points_of,
    shown,
    stated_size,
    turned,
    with_area,
)
from dfssd.wording import counted

_NOTES = {"categories", "info"}
_IMAGES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".svg", ".tif", ".tiff", ".webp")
_WITHOUT_BOX = {
    "brush": "a brush region, which has no box; export it as COCO or YOLO, or draw a box",
    "bitmask": "a bitmask, which has no box; export it as COCO or YOLO, or draw a box",
    "keypoint": "a point, which has no area; draw a box, or remove it",
    "vector": "a line, which has no area; draw a box, or remove it",
}
_SHAPES = ("rectangle", "polygon", "ellipse", *_WITHOUT_BOX)


def is_label_studio(content: object) -> bool:
    """Whether the content of a .json file is that of an export of Label Studio, be it damaged."""
    if isinstance(content, dict):
        return _is_task(content) or _is_stored(content)
    return isinstance(content, list) and any(_is_task(entry) or _is_flat(entry) for entry in content)


def read_label_studio(file: Path, content: Any) -> Found:
    """Read the tasks of an export.

    A finished annotation without regions means a defect-free image, a task without annotation (or skipped) an unlabeled
    one, which the result does not mention. Predictions of models do not count. Several annotations of one task are
    given one by one, unless one of them is marked as ground truth.

    Args:
        file: The file, for messages.
        content: What it holds.
    """
    reading = _Reading(file)
    try:
        for index, entry in enumerate(content if isinstance(content, list) else [content]):
            place = f"task {_id(entry)}" if _id(entry) else f"task number {index + 1}"
            if _is_stored(entry):
                reading.add(place, entry["task"].get("data"), [entry])
            elif _is_task(entry):
                reading.add_task(place, entry)
            elif _is_flat(entry):
                reading.add(place, entry, [{"id": entry.get("annotation_id"), "result": _flat_results(entry)}])
            else:
                raise Unusable(f"{place} is {shown(entry)}, expected a task as the others")
    except Unusable as e:
        return BrokenFile(file, f"is not a valid export of Label Studio: {e}; export it again")
    if not reading.found:
        return OtherFile(file, f"its {counted(reading.unlabeled, 'task has', 'tasks have')} no annotation")
    if reading.others and not reading.regions:
        return OtherFile(file, "its annotations hold choices or texts, but no regions")
    return LabelFile(file, "label-studio", tuple(reading.found), notes=reading.notes())


def is_class_notes(content: object) -> bool:
    """Whether it is the ``notes.json`` that Label Studio puts beside a YOLO export."""
    return isinstance(content, dict) and isinstance(content.get("categories"), list) and set(content) <= _NOTES


def read_class_notes(file: Path, content: dict[str, Any]) -> Found:
    """Read the class list of a YOLO export: ``{"categories": [{"id": 0, "name": "pit"}, ...]}``."""
    names: dict[int, str] = {}
    try:
        for index, category in enumerate(content["categories"]):
            if not isinstance(category, dict):
                raise Unusable(f"categories[{index}] is {shown(category)}, expected id and name")
            class_id = number(category.get("id"), f"'id' of categories[{index}]")
            name = name_of(category.get("name"), f"'name' of categories[{index}]")
            if names.setdefault(int(class_id), name) != name:
                raise Unusable(f"the id {int(class_id)} is listed twice")
    except Unusable as e:
        return BrokenFile(file, f"is not a valid class list: {e}; correct it, or remove it from the data")
    if not names or sorted(names) != list(range(len(names))):
        return OtherFile(file, "it lists categories, but no images and no ids from 0 on")
    return ClassFile(file, tuple(names[i] for i in range(len(names))))


@dataclass
class _Results:
    """What one annotation holds.

    Attributes:
        size: (width, height) of the image [px]; None without regions.
        labels: Class of each region.
        boxes: Box of each region.
        turned: Number of turned boxes.
        others: Number of results that are no regions.
    """

    size: tuple[int, int] | None = None
    labels: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    turned: int = 0
    others: int = 0


@dataclass
class _Reading:
    """The tasks of one file.

    Attributes:
        file: The file.
        found: The result.
        unlabeled: Number of tasks without annotation.
        skipped: Number of tasks that an annotator has skipped.
        truth: Number of tasks of which the annotation marked as ground truth is taken.
        turned: Number of turned boxes.
        regions: Number of regions, and of annotations with a problem.
        others: Number of choices, texts and the like.
    """

    file: Path
    found: list[Annotation] = field(default_factory=list)
    unlabeled: int = 0
    skipped: int = 0
    truth: int = 0
    turned: int = 0
    regions: int = 0
    others: int = 0

    def add_task(self, place: str, task: dict[str, Any]) -> None:
        """Read a task of a JSON export."""
        annotations = task.get("annotations", task.get("completions")) or []
        if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
            raise Unusable(f"the annotations of {place} are {shown(annotations)}, expected a list of objects")
        done = [entry for entry in annotations if not (entry.get("was_cancelled") or entry.get("skipped"))]
        if not done:
            self.unlabeled += 1
            self.skipped += bool(annotations)
            return
        truth = [entry for entry in done if entry.get("ground_truth") is True]
        if len(done) > 1 and len(truth) == 1:
            self.truth += 1
            done = truth
        self.add(place, task.get("data"), done)

    def add(self, place: str, data: Any, annotations: list[dict[str, Any]]) -> None:
        """Read the annotations of one task, whose image ``data`` names.

        Raises:
            Unusable: It names none.
        """
        image = _image_of(data, place)
        for entry in annotations:
            where = place if len(annotations) == 1 else f"{place}, annotation {_id(entry) or len(self.found)}"
            where = f": image {shown(image)} ({where})"
            try:
                read = _read_results(entry.get("result"))
            except Unusable as e:
                self.regions += 1
                self.found.append(Annotation(self.file, image, place=where, problem=str(e)))
                continue
            self.turned += read.turned
            self.regions += len(read.boxes)
            self.others += read.others
            boxes = np.array(read.boxes, dtype=np.float64).reshape(-1, 4)
            self.found.append(Annotation(self.file, image, tuple(read.labels), boxes, size=read.size, place=where))

    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        notes = []
        if self.unlabeled:
            skipped = f", {self.skipped} of them skipped" if self.skipped else ""
            notes.append(f"{counted(self.unlabeled, 'task')} without annotation{skipped}: unlabeled")
        if self.truth:
            tasks = counted(self.truth, "task")
            notes.append(f"{tasks} with several annotations: the one marked as ground truth is taken")
        if self.turned:
            notes.append(f"{counted(self.turned, 'turned box', 'turned boxes')}: the upright box around each is taken")
        return tuple(notes)


def _is_task(entry: object) -> bool:
    lists = {"annotations", "completions", "predictions"}
    return isinstance(entry, dict) and isinstance(entry.get("data"), dict) and not lists.isdisjoint(entry)


def _is_stored(entry: object) -> bool:
    """Whether it is one annotation with its task, as the tool writes them to a cloud storage."""
    return isinstance(entry, dict) and "result" in entry and isinstance(entry.get("task"), dict)


def _is_flat(entry: object) -> bool:
    """Whether it is a task of a JSON-MIN export."""
    return isinstance(entry, dict) and "annotation_id" in entry and ("annotator" in entry or "lead_time" in entry)


def _id(entry: Any) -> str:
    value = entry.get("id") if isinstance(entry, dict) else None
    return str(value) if isinstance(value, int) else ""


def _image_of(data: Any, place: str) -> str:
    """The image that a task is about."""
    values = data.items() if isinstance(data, dict) else ()
    named = {key: value for key, value in values if isinstance(value, str) and _is_image(value)}
    if "image" in named or (isinstance(data, dict) and isinstance(data.get("image"), str)):
        named = {"image": data["image"]}
    if len(named) != 1:
        what = f"{counted(len(named), 'image')} ({first_of([shown(key) for key in named])})" if named else "no image"
        raise Unusable(f"{place} names {what}, expected one")
    return image_name(next(iter(named.values())), f"the image of {place}")


def _is_image(value: str) -> bool:
    return PurePosixPath(path_of(value)).suffix.lower() in _IMAGES


def _flat_results(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The regions of a JSON-MIN task in the form of a JSON export."""
    results = []
    for value in entry.values():
        for region in value if isinstance(value, list) else ():
            if isinstance(region, dict) and (kind := _kind_of(region)):
                results.append({**region, "id": None, "type": kind, "value": region})
    return results


def _kind_of(region: Mapping[str, Any]) -> str:
    """The type of a region of a JSON-MIN export; empty for what is no region of an image."""
    for shape in _SHAPES:
        if f"{shape}labels" in region:
            return f"{shape}labels"
    signs = {"points": "polygon", "radiusX": "ellipse", "rle": "brush", "width": "rectangle"}
    return next((shape for sign, shape in signs.items() if sign in region), "")


def _read_results(results: Any) -> _Results:
    """Read the regions of one annotation.

    Raises:
        Unusable: One of them cannot be used.
    """
    if results is None:
        results = []
    if not isinstance(results, list):
        raise Unusable(f"'result' is {shown(results)}, expected a list")
    read = _Results(others=len(results))
    for index, (region, names) in enumerate(_regions(results)):
        try:
            stated = stated_size(region.get("original_width"), region.get("original_height"))
            if stated is None:
                raise Unusable("original_width and original_height are missing")
            if read.size not in (None, stated):
                raise Unusable(f"the image has two sizes, {read.size} and {stated} px")
            read.size = stated
            box, angle = _box(region, stated)
            read.boxes.append(box)
            read.labels.append(_one_name(names))
            read.turned += bool(angle)
        except Unusable as e:
            raise Unusable(f"region {index + 1}: {e}") from None
    read.others -= len(read.boxes)
    return read


def _regions(results: list[Any]) -> list[tuple[dict[str, Any], list[Any]]]:
    """Each region with its labels; those of a plain shape stand in an entry of their own with the same id."""
    regions: list[tuple[dict[str, Any], list[Any]]] = []
    apart: dict[object, list[Any]] = {}
    for index, entry in enumerate(results):
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise Unusable(f"result[{index}] is {shown(entry)}, expected a region")
        kind, value, key = entry["type"], entry.get("value"), entry.get("id")
        shape = kind.removesuffix("labels")
        if shape not in _SHAPES and not kind.endswith("labels"):
            continue  # a choice, a text, a relation
        if not isinstance(value, dict) or not isinstance(value.get(kind, []), list):
            raise Unusable(f"'value' of result[{index}] is {shown(value)}, expected a region")
        names = value.get(kind, [])
        if isinstance(key, (str, int)) and kind in ("labels", shape):
            names = apart.setdefault(key, [])
            names += value.get("labels", []) if isinstance(value.get("labels"), list) else []
        if shape in _SHAPES:
            regions.append(({**entry, "type": shape}, names))
        elif kind != "labels":
            raise Unusable(f"result[{index}] is of the type {shown(kind)}, which has no box")
    return regions


def _one_name(names: list[Any]) -> str:
    unique = dict.fromkeys(name_of(name, "the label") for name in names)
    if len(unique) != 1:
        what = f"{counted(len(unique), 'label')} ({', '.join(unique)})" if unique else "no label"
        raise Unusable(f"it has {what}; give it one")
    return next(iter(unique))


def _box(region: Mapping[str, Any], size: tuple[int, int]) -> tuple[Box, float]:
    """Box [px] of a region, and the angle by which it is turned."""
    kind, value = region["type"], region["value"]
    if kind in _WITHOUT_BOX:
        raise Unusable(f"it is {_WITHOUT_BOX[kind]}")
    if number(region.get("image_rotation") or 0, "'image_rotation'") % 360:
        raise Unusable("the image was turned in Label Studio (image_rotation); turn the file itself and its labels")
    if kind == "polygon":
        points = points_of(value.get("points"), "'points'")
        if len(points) < 3:
            raise Unusable(f"its polygon has {counted(len(points), 'point')}, expected at least 3")
        return with_area(box_around([_pixels(point, size) for point in points]), "its polygon"), 0.0
    angle = number(value.get("rotation") or 0, "'rotation'") % 360
    x, y = _pixels((number(value.get("x"), "'x'"), number(value.get("y"), "'y'")), size)
    sides = ("radiusX", "radiusY") if kind == "ellipse" else ("width", "height")
    w, h = _pixels((number(value.get(sides[0]), sides[0]), number(value.get(sides[1]), sides[1])), size)
    if kind == "ellipse":
        box = box_around_ellipse((x, y), w, h, math.radians(angle))
        return with_area(clipped(box, size), "its ellipse"), angle
    with_area((x, y, x + w, y + h), "its box")
    if not angle:
        return (x, y, x + w, y + h), 0.0
    return with_area(clipped(box_around(turned((x, y), w, h, angle, (x, y))), size), "its turned box"), angle


def _pixels(point: Point, size: tuple[int, int]) -> Point:
    """A point, or a pair of lengths, in percent of the image as pixels."""
    return point[0] / 100 * size[0], point[1] / 100 * size[1]
