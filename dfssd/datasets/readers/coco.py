"""COCO: one .json file for many images.

``supervision`` reads COCO, too, but gives up a whole file at its first wrong annotation and does not notice crowd
regions, annotations of unknown images or corners instead of sizes. Here every image gets its boxes or its own problem.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, Found, LabelFile, OtherFile
from dfssd.datasets.readers.json_values import (
    Box,
    Unusable,
    box_around,
    clipped,
    first_of,
    image_name,
    name_of,
    number,
    numbers,
    paired,
    shown,
    stated_size,
    turned,
    with_area,
)
from dfssd.wording import counted

_PARTS = ("images", "annotations", "categories")
_AGAIN = "export it again, or correct it"


def is_coco(content: object) -> bool:
    """Whether the content of a .json file is that of a COCO file, be it damaged."""
    return isinstance(content, dict) and sum(part in content for part in _PARTS) > 1 and "items" not in content


def read_coco(file: Path, content: dict[str, Any]) -> Found:
    """Read COCO labels.

    An image that is listed without annotations is free of defects. Crowd regions are left out; an image with nothing
    else is not mentioned, since it is not free of defects. Boxes are those of ``bbox``, else those around the polygons;
    a rectangle turned in CVAT (``attributes.rotation``) becomes the upright box around it.

    Args:
        file: The file, for messages.
        content: What it holds.
    """
    if _has_no_boxes(content):
        return OtherFile(file, "its annotations have no boxes and no categories")
    if content.get("annotations") is None and "images" in content:
        return OtherFile(file, "it lists images without annotations")
    try:
        images, annotations, listed = (_list_of_objects(content, part) for part in _PARTS)
        if not images and not annotations:
            return OtherFile(file, "it lists no images")
        categories = _read_categories(listed)
        names, entries = _read_images(images)
        grouped = _group(annotations, entries)
        reading = _Reading(file, categories, grouped, Counter(names.values()))
        for key, same in entries.items():
            reading.add(key, same, names)
        reading.check_units()
    except Unusable as e:
        return BrokenFile(file, f"is not valid COCO: {e}; {_AGAIN}")
    notes = reading.notes()
    if not annotations:
        notes = (f"no annotation at all: its {counted(len(images), 'image counts', 'images count')} as defect-free",)
    return LabelFile(file, "coco", tuple(reading.found), categories.order, notes=notes, parents=categories.parents)


@dataclass(frozen=True)
class _Categories:
    """The classes of a file.

    Attributes:
        names: Name of each category id.
        order: Names in id order.
        parents: Those that are the supercategory of another.
    """

    names: dict[str, str]
    order: tuple[str, ...]
    parents: frozenset[str]


@dataclass
class _Reading:
    """The annotations of one file, image by image.

    Attributes:
        file: The file.
        categories: Its classes.
        grouped: Annotations by image id.
        times: How often each image name is listed.
        found: The result.
        crowds: Number of crowd regions.
        crowded: Images that have nothing else.
        turned: Number of turned boxes.
        areas: Number of boxes whose ``area`` says that ``bbox`` holds sizes, of those where it says corners, and of all
            with an area.
    """

    file: Path
    categories: _Categories
    grouped: dict[str, list[dict[str, Any]]]
    times: Counter[str]
    found: list[Annotation] = field(default_factory=list)
    crowds: int = 0
    crowded: list[str] = field(default_factory=list)
    turned: int = 0
    areas: Counter[str] = field(default_factory=Counter)

    def add(self, key: str, same: Sequence[dict[str, Any]], names: dict[int, str]) -> None:
        """Read the image with the id ``key``.

        Args:
            key: Its id.
            same: The entries with this id, usually one.
            names: Image name of each entry by its ``id()``.
        """
        listed = dict.fromkeys(names[id(entry)] for entry in same)
        for name in listed:
            place = f": image {shown(name)}" + (f" (id {key})" if self.times[name] > 1 else "")
            try:
                if len(listed) > 1:
                    raise Unusable(
                        f"id {key} is that of {' and '.join(map(shown, listed))}; give each image its own id"
                    )
                size = _one_size(same)
                labels, boxes, crowds = self._boxes(key, size)
            except Unusable as e:
                self.found.append(Annotation(self.file, name, place=place, problem=str(e)))
                continue
            self.crowds += crowds
            if crowds and not boxes:
                self.crowded.append(name)
                continue
            corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
            self.found.append(Annotation(self.file, name, tuple(labels), corners, size=size, place=place))

    def _boxes(self, key: str, size: tuple[int, int] | None) -> tuple[list[str], list[Box], int]:
        """Class names and boxes of an image, and its number of crowd regions."""
        labels, boxes, crowds = [], [], 0
        for annotation in self.grouped.get(key, ()):
            try:
                if annotation.get("iscrowd") and number(annotation["iscrowd"], "'iscrowd'"):
                    crowds += 1
                    continue
                category = _key(annotation.get("category_id"), "'category_id'")
                if category not in self.categories.names:
                    raise Unusable(f"category_id {shown(annotation['category_id'])} is not among the categories")
                boxes.append(self._box(annotation, size))
                labels.append(self.categories.names[category])
            except Unusable as e:
                raise Unusable(f"annotation {shown(annotation.get('id'))}: {e}") from None
        return labels, boxes, crowds

    def _box(self, annotation: dict[str, Any], size: tuple[int, int] | None) -> Box:
        bbox, segmentation = annotation.get("bbox"), annotation.get("segmentation")
        if bbox is None or bbox == []:
            return with_area(box_around(_polygon_points(segmentation)), "its polygon")
        x, y, w, h = numbers(bbox, "'bbox'", 4)
        box = with_area((x, y, x + w, y + h), f"'bbox' {x:g} {y:g} {w:g} {h:g}")
        outline = _outline(segmentation)
        if outline is not None:
            _hold_against(box, (x, y, w, h), outline)
            return box
        if angle := _rotation(annotation):
            self.turned += 1
            corners = turned((x, y), w, h, angle, (x + w / 2, y + h / 2))
            return with_area(clipped(box_around(corners), size), "the turned 'bbox'")
        area = annotation.get("area")
        if isinstance(area, (int, float)) and 0 < area < 1e300:
            self.areas["sizes"] += abs(area - w * h) <= 0.01 * area
            self.areas["corners"] += w > x and h > y and abs(area - (w - x) * (h - y)) <= 0.01 * area
            self.areas["all"] += 1
        return box

    def check_units(self) -> None:
        """Refuse boxes that are consistently in another form than x, y, width, height in pixels.

        Raises:
            Unusable: They are.
        """
        boxes = np.concatenate([annotation.boxes for annotation in self.found] or [np.zeros((0, 4))])
        if len(boxes) and boxes.min() >= 0 and boxes.max() <= 1:
            raise Unusable("all boxes lie within 0 to 1, but COCO has pixels; multiply them by the size of the image")
        if not self.areas["sizes"] and 2 * self.areas["corners"] > self.areas["all"]:
            raise Unusable("'bbox' holds corners, as 'area' shows, but COCO has x, y, width, height")

    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        notes = []
        if self.crowds:
            notes.append(f"{counted(self.crowds, 'crowd region')} (iscrowd) left out")
        if self.crowded:
            images = f"{counted(len(self.crowded), 'image')} with nothing else"
            notes.append(f"{images} ({first_of(self.crowded)}): unlabeled")
        if self.turned:
            notes.append(f"{counted(self.turned, 'turned box', 'turned boxes')}: the upright box around each is taken")
        return tuple(notes)


def _has_no_boxes(content: dict[str, Any]) -> bool:
    """Whether it is a file of captions and the like."""
    annotations = content.get("annotations")
    return (
        "categories" not in content
        and isinstance(annotations, list)
        and not any(isinstance(a, dict) and a.keys() & {"bbox", "segmentation", "category_id"} for a in annotations)
    )


def _list_of_objects(content: dict[str, Any], part: str) -> list[dict[str, Any]]:
    if part not in content:
        raise Unusable(f"'{part}' is missing")
    entries = content[part]
    if not isinstance(entries, list):
        raise Unusable(f"'{part}' is {shown(entries)}, expected a list")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise Unusable(f"{part}[{index}] is {shown(entry)}, expected an object")
    return entries


def _key(value: Any, what: str) -> str:
    """An id, the same for 7, 7.0 and "7"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise Unusable(f"{what} is {'missing' if value is None else shown(value)}")
    return str(value).strip()


def _read_categories(listed: Iterable[dict[str, Any]]) -> _Categories:
    names: dict[str, str] = {}
    supers: dict[str, str] = {}
    for index, category in enumerate(listed):
        key = _key(category.get("id"), f"'id' of categories[{index}]")
        name = name_of(category.get("name"), f"the name of category {key}")
        if names.setdefault(key, name) != name:
            raise Unusable(f"category id {key} is that of {shown(names[key])} and {shown(name)}")
        supers[key] = str(category.get("supercategory") or "").strip()
    keys = sorted(names, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0))
    ids = defaultdict(list)
    for key in keys:
        ids[names[key]].append(key)
    for name, same in ids.items():
        # Roboflow calls the parent of all classes like the project, which may be called like a class.
        if len(same) > 2 or (len(same) == 2 and sum(supers[key] == name for key in same) != 1):
            raise Unusable(f"categories {' and '.join(same)} have the same name {shown(name)}; give both the same id")
    parents = {parent for key, parent in supers.items() if parent != names[key] and len(ids.get(parent, ())) == 1}
    return _Categories(names, tuple(ids), frozenset(parents))


def _read_images(images: Iterable[dict[str, Any]]) -> tuple[dict[int, str], dict[str, list[dict[str, Any]]]]:
    """Image name of each entry by its ``id()``, and the entries by image id."""
    names: dict[int, str] = {}
    entries: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for index, entry in enumerate(images):
        what = f"images[{index}]"
        key = _key(entry.get("id"), f"'id' of {what}")
        if "file_name" not in entry and "coco_url" not in entry:
            raise Unusable(f"'file_name' of {what} is missing")
        name = image_name(entry.get("file_name", entry.get("coco_url")), f"'file_name' of {what}")
        names[id(entry)] = name
        entries[key].append(entry)
    return names, entries


def _group(annotations: Iterable[dict[str, Any]], images: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for index, annotation in enumerate(annotations):
        grouped[_key(annotation.get("image_id"), f"'image_id' of annotations[{index}]")].append(annotation)
    if orphans := [key for key in grouped if key not in images]:
        raise Unusable(
            f"{counted(sum(len(grouped[key]) for key in orphans), 'annotation')} for image_id {first_of(orphans)}, "
            "which is not among the images"
        )
    return grouped


def _one_size(same: Iterable[dict[str, Any]]) -> tuple[int, int] | None:
    """The size that the entries of one image state."""
    sizes = {stated_size(entry.get("width"), entry.get("height")) for entry in same} - {None}
    if len(sizes) > 1:
        shapes = " and ".join(f"{size[0]}x{size[1]}" for size in sizes if size)
        raise Unusable(f"it is listed twice, as {shapes} px")
    return sizes.pop() if sizes else None


def _polygon_points(segmentation: Any) -> list[tuple[float, float]]:
    """All points of the polygons of an annotation without ``bbox``."""
    if not segmentation:
        raise Unusable("'bbox' is missing, and there is no polygon")
    if not isinstance(segmentation, list):
        raise Unusable("'bbox' is missing, and 'segmentation' is no polygon; write 'bbox'")
    points = []
    for polygon in segmentation if isinstance(segmentation[0], list) else [segmentation]:
        values = numbers(polygon, "its polygon")
        if len(values) < 6:
            raise Unusable(f"its polygon has {counted(len(values), 'value')}, expected at least three points")
        points += paired(values, "its polygon")
    return points


def _outline(segmentation: Any) -> Box | None:
    """The box around polygons that stand beside a ``bbox``; None if there are none, or not in the usual form."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    try:
        # Slices and min() instead of checks point by point: this runs over millions of them.
        parts = [part for part in segmentation if part] if isinstance(segmentation[0], list) else [segmentation]
        xs, ys = [part[::2] for part in parts], [part[1::2] for part in parts]
        box = (min(map(min, xs)), min(map(min, ys)), max(map(max, xs)), max(map(max, ys)))
    except (TypeError, ValueError):
        return None
    if not all(type(value) in (int, float) for value in box):
        return None
    return box if box[0] < box[2] and box[1] < box[3] else None


def _hold_against(box: Box, bbox: Box, outline: Box) -> None:
    """Refuse a box that its polygon contradicts; ``bbox`` are the four numbers as written."""
    written = " ".join(f"{value:g}" for value in bbox)
    x, y, w, h = bbox
    for other, what in ((bbox, "corners"), ((x - w / 2, y - h / 2, x + w / 2, y + h / 2), "a center")):
        if _apart(other, outline) <= 1 and _apart(box, outline) > 3:
            raise Unusable(f"'bbox' {written} holds {what}, as its polygon shows; COCO has x, y, width, height")
    x1, y1, x2, y2 = outline
    if box[0] > x2 + 1 or x1 > box[2] + 1 or box[1] > y2 + 1 or y1 > box[3] + 1:
        raise Unusable(f"'bbox' {written} and its polygon ({x1:g} {y1:g} to {x2:g} {y2:g}) lie in different places")


def _apart(a: Box, b: Box) -> float:
    """Largest difference of two boxes [px]."""
    return max(abs(p - q) for p, q in zip(a, b, strict=True))


def _rotation(annotation: dict[str, Any]) -> float:
    """The angle [degrees] by which a box was turned in CVAT."""
    attributes = annotation.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    if isinstance(angle, bool) or not isinstance(angle, (int, float)) or not abs(angle) < 1e6:
        return 0.0
    return angle % 360
