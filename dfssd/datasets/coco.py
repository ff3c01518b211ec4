"""COCO: one .json file for many images, read by ``supervision`` image by image, so that a message can name the image.

Its whole-file reader is not used, since it draws the mask of every segmented object in memory.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from supervision.dataset.formats.coco import (
    build_coco_class_index_mapping,
    coco_annotations_to_detections,
    coco_categories_to_classes,
    group_coco_annotations_by_image_id,
)

from dfssd.datasets.records import Item, check_names
from dfssd.datasets.sources import Source, pixel_boxes, split_named, split_of, usable_sizes
from dfssd.errors import UserError


def is_coco(path: Path) -> bool:
    """Whether a .json file is a COCO annotation file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(
        isinstance(content.get(k), list) for k in ("images", "annotations", "categories")
    )


def read_coco(
    root: Path, files: list[Path], images: list[Path], names: Sequence[str] | None, missing: np.ndarray | None
) -> Source:
    """Read COCO labels.

    An image that a file lists without annotations is free of defects; one that no file lists has no label.

    Args:
        root: Folder of the data set; folders and file names below it may name splits.
        files: The .json files, all with the same categories.
        images: All images.
        names: Class names in id order; None: the categories of the first file by id.
        missing: Boxes of an image without label.

    Raises:
        UserError: A file is damaged, or the categories differ.
    """
    source = Source([], ())
    sizes = usable_sizes(images, source)
    unusable = {image for image, _ in source.problems}
    known: dict[Path, Item] = {}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_name[image.name].append(image)
    for path in files:
        annotations = _read_annotations(path, list(names or source.names))
        source.names = annotations.names
        split = split_of(path, root) or split_named(re.split(r"[^a-z0-9]+", path.stem.lower()))
        for image_id, file_name in annotations.files.items():
            found = _locate(file_name, by_name, path, split, root)
            if found is None:
                source.problems.append((path.parent / file_name, f"{path}: image '{file_name}' is not in {root}"))
            elif found not in unusable:
                try:
                    boxes = annotations.boxes(image_id, sizes[found])
                    known[found] = Item(found, boxes, split or split_of(found, root))
                except (ValueError, KeyError, TypeError, IndexError) as e:
                    unusable.add(found)
                    reason = f"missing {e}" if isinstance(e, KeyError) else e
                    source.problems.append((found, f"{path}: image '{file_name}': {reason}"))
    for image in images:
        if image in known:
            source.items.append(known[image])
        elif image not in unusable:
            split = split_of(image, root)
            source.items.append(Item(image, None if split == "unlabeled" else missing, split))
    return source


@dataclass(frozen=True)
class _Annotations:
    """One .json file.

    Attributes:
        names: Class names in id order.
        files: File name by image id.
        classes: Class name of each index that ``target`` gives.
        target: Category id -> index.
        by_image: Annotations by image id.
    """

    names: tuple[str, ...]
    files: dict[Any, str]
    classes: list[str]
    target: dict[int, int]
    by_image: dict[Any, list[dict[str, Any]]]

    def boxes(self, image_id: Any, size: tuple[int, int]) -> np.ndarray:
        """Boxes of an image of that size [px], (n, 5) rows; an image without annotations is free of defects."""
        detections = coco_annotations_to_detections(self.by_image.get(image_id, []), size, with_masks=False)
        if len(detections) == 0:
            return np.zeros((0, 5), dtype=np.float32)
        categories = np.asarray(detections.class_id).tolist()
        if unknown := [category for category in categories if category not in self.target]:
            raise ValueError(f"category_id {unknown[0]} is not among the categories")
        ids = [self.names.index(self.classes[self.target[category]]) for category in categories]
        return pixel_boxes(detections.xyxy, ids, size)


def _read_annotations(path: Path, names: list[str]) -> _Annotations:
    """Read a .json file; ``names`` are the class names known so far.

    Raises:
        UserError: The file is damaged, or its categories do not fit.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    try:
        classes, target = _coco_classes(content)
        order = names or classes
        if unknown := [name for name in classes if name not in order]:
            raise UserError(
                f"{path}: category '{unknown[0]}' is not among the names ({', '.join(order)}); "
                "all files need the same categories"
            )
        checked = check_names(order, path)
        by_image = group_coco_annotations_by_image_id(content["annotations"])
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
    except (KeyError, TypeError) as e:
        raise UserError(f"{path}: not valid COCO, missing or invalid {e}; export it again") from e
    if orphans := by_image.keys() - files.keys():
        raise UserError(f"{path}: annotations for image_id {min(orphans)}, which is not among the images")
    return _Annotations(checked, files, classes, target, by_image)


def _coco_classes(content: dict[str, Any]) -> tuple[list[str], dict[int, int]]:
    """Class names by category id, and category id -> index; a parent category without boxes is not a class."""
    used = {annotation["category_id"] for annotation in content["annotations"]}
    parents = {category.get("supercategory") for category in content["categories"]}
    categories = [c for c in content["categories"] if c["id"] in used or c["name"] not in parents]
    classes = coco_categories_to_classes(categories)
    check_names(classes, "the COCO categories")
    return classes, build_coco_class_index_mapping(categories, classes)


def _locate(
    file_name: str, by_name: dict[str, list[Path]], json_file: Path, split: str | None, root: Path
) -> Path | None:
    """The image of a COCO entry: its path ends with ``file_name``; of several, next to the JSON or in its split."""
    parts = Path(file_name.replace("\\", "/")).parts
    found = [p for p in by_name.get(parts[-1], []) if p.parts[-len(parts) :] == parts] if parts else []
    if len(found) > 1:
        near = [p for p in found if json_file.parent in p.parents and json_file.parent != root]
        found = near or [p for p in found if split_of(p, root) == split] or found
    return found[0] if found else None
