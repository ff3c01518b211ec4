"""Which images belong to which labels in a folder: the layouts that data sets come in.

A layout reader turns a folder into a :class:`Source`: the images, their boxes, and every problem found on the way.
Pascal VOC and COCO are read by ``supervision``, file by file, so that a message can name the file.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml
from supervision.dataset.formats.coco import (
    build_coco_class_index_mapping,
    coco_annotations_to_detections,
    coco_categories_to_classes,
    group_coco_annotations_by_image_id,
)
from supervision.dataset.formats.pascal_voc import detections_from_xml_obj

from dfssd.datasets.image_files import find_images, image_size, map_files
from dfssd.datasets.label_files import clip_box, read_label_file
from dfssd.datasets.records import Item, check_names
from dfssd.errors import UserError

_ROLE = re.compile(r"(jpeg|png)?images?|labels?|annotations?|xmls?|labels?_?txt", re.IGNORECASE)
"""Folders that say what kind of file they hold, not which image: they are left out when files are paired."""

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test", "unlabeled": "unlabeled"}
_SPLIT_NAME = re.compile(r"(train|valid|val|test|unlabell?ed)(?:ing|idation|ation)?(?:[-_]?\d+)?", re.IGNORECASE)

EXPECTED = (
    "expected images/ with labels/ (YOLO), image/ with label/ (CR7-DET), images with .xml files (Pascal VOC) "
    "or a COCO .json"
)


@dataclass
class Source:
    """What a reader found.

    Attributes:
        items: Usable images.
        names: Class names in id order.
        problems: (file, reason) for each image that cannot be used, reason naming file and line.
    """

    items: list[Item]
    names: tuple[str, ...]
    problems: list[tuple[Path, str]] = field(default_factory=list)


def read_folder(root: Path, names: Sequence[str] | None, missing: np.ndarray | None) -> Source:
    """Read the data set in ``root``, whatever its layout.

    Args:
        root: Folder.
        names: Class names in id order, or None to take them from the source.
        missing: Boxes of an image without label: None (unlabelled) or a (0, 5) array (defect-free).

    Raises:
        UserError: There are no images, no labels, or the class names do not fit.
    """
    images = find_images(root)
    if not images:
        raise UserError(f"no images in {root}; {EXPECTED}")
    coco = [path for path in sorted(root.rglob("*.json")) if _is_coco(path)]
    if coco:
        return _read_coco(root, coco, images, names, missing)
    xml = pair(root, images, root.rglob("*.[xX][mM][lL]"))
    if xml:
        return _read_voc(root, images, xml, names, missing)
    txt = pair(root, images, root.rglob("*.[tT][xX][tT]"))
    if txt:
        return read_yolo(root, [(i, txt.get(i), split_of(i, root)) for i in images], names, missing)
    raise UserError(f"no labels for the {len(images)} images in {root}; {EXPECTED}")


def split_of(path: Path, root: Path) -> str | None:
    """The split that a folder between ``root`` and ``path`` names, else None."""
    for part in path.relative_to(root).parts[:-1]:
        if match := _SPLIT_NAME.fullmatch(part):
            return _SPLITS[match[1].lower().replace("unlabelled", "unlabeled")]
    return None


def pair(root: Path, images: Iterable[Path], labels: Iterable[Path]) -> dict[Path, Path]:
    """Label file of each image that has one.

    A label belongs to the image with the same path below ``root``, folders such as ``images`` and ``labels`` left
    out; failing that, to the only image with its stem. Letter case is ignored.
    """
    by_key, by_stem = {}, defaultdict(list)
    for label in sorted(labels):
        by_key[_key(label, root)] = label
        by_stem[label.stem.casefold()].append(label)
    images = list(images)
    stems = Counter(image.stem.casefold() for image in images)
    pairs = {}
    for image in images:
        stem = image.stem.casefold()
        if label := by_key.get(_key(image, root)):
            pairs[image] = label
        elif stems[stem] == 1 and len(by_stem[stem]) == 1:
            pairs[image] = by_stem[stem][0]
    return pairs


def _key(path: Path, root: Path) -> tuple[str, ...]:
    folders = path.relative_to(root).parts[:-1]
    return (*(part.casefold() for part in folders if not _ROLE.fullmatch(part)), path.stem.casefold())


def _sizes(images: Sequence[Path], source: Source) -> dict[Path, tuple[int, int]]:
    """(width, height) of the usable ``images``; the others become problems of ``source``."""
    sizes = {}
    for image, size in zip(images, map_files(image_size, images, "Checking images"), strict=True):
        if isinstance(size, str):
            source.problems.append((image, f"{image}: {size}"))
        else:
            sizes[image] = size
    return sizes


def read_yolo(
    root: Path,
    entries: Sequence[tuple[Path, Path | None, str | None]],
    names: Sequence[str] | None,
    missing: np.ndarray | None,
) -> Source:
    """Read YOLO labels.

    Args:
        root: Folder that may hold ``classes.txt``.
        entries: (image, label file or None, split or None).
        names: Class names in id order; None: from ``classes.txt``, else ``class_0``, ``class_1``, ...
        missing: Boxes of an image without label.
    """
    if names is None:
        listed = sorted(root.rglob("classes.txt"), key=lambda p: len(p.parts))
        if listed:
            lines = listed[0].read_text(encoding="utf-8-sig").splitlines()
            names = check_names([line for line in lines if line.strip()], listed[0])
    source = Source([], tuple(names or ()))
    sizes = _sizes([image for image, _, _ in entries], source)
    usable = [entry for entry in entries if entry[0] in sizes]
    n_classes = None if names is None else len(names)

    def read(label: Path) -> np.ndarray | str:
        try:
            return read_label_file(label, n_classes)
        except UserError as e:
            return str(e)

    labels = [label for _, label, _ in usable if label is not None]
    boxes = dict(zip(labels, map_files(read, labels, "Reading labels"), strict=True))
    for image, label, split in usable:
        found = missing if label is None else boxes[label]
        if isinstance(found, str):
            source.problems.append((image, found))
        else:
            source.items.append(Item(image, None if split == "unlabeled" and label is None else found, split))
    if names is None:
        ids = [int(item.boxes[:, 0].max()) for item in source.items if item.boxes is not None and len(item.boxes)]
        source.names = tuple(f"class_{i}" for i in range(max(ids, default=0) + 1))
    return source


def _to_rows(xyxy: np.ndarray, ids: Iterable[int], size: tuple[int, int]) -> np.ndarray:
    """Pixel boxes (n, 4) and class ids as (n, 5) rows; ValueError if a box is not inside the image."""
    width, height = size
    rows = []
    for class_id, (x1, y1, x2, y2) in zip(ids, np.asarray(xyxy, dtype=np.float64).tolist(), strict=True):
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        try:
            rows.append([class_id, *clip_box(*box)])
        except ValueError as e:
            raise ValueError(f"box x1 y1 x2 y2 = {x1:g} {y1:g} {x2:g} {y2:g} in an image of {width}x{height} px: {e}") \
                from e  # fmt: skip
    return np.unique(np.array(rows, dtype=np.float32).reshape(-1, 5), axis=0)


def _read_voc(
    root: Path, images: list[Path], xml: dict[Path, Path], names: Sequence[str] | None, missing: np.ndarray | None
) -> Source:
    source = Source([], ())
    sizes = _sizes(images, source)
    order: list[str] = list(names or ())
    read: list[tuple[Path, np.ndarray | None]] = []
    for image, size in sizes.items():
        path = xml.get(image)
        if path is None:
            read.append((image, None if split_of(image, root) == "unlabeled" else missing))
            continue
        try:
            detections, extended = detections_from_xml_obj(parse_xml(path).getroot(), order, size)
            if names is not None and len(extended) > len(names):
                unknown = extended[len(names)]
                raise ValueError(f"class '{unknown}' is not among the names ({', '.join(names)}); add it to names=")
            read.append((image, _to_rows(detections.xyxy, detections.class_id, size)))
            order = extended
        except (ValueError, ParseError, DefusedXmlException) as e:
            source.problems.append((image, f"{path}: {str(e).rstrip('.')}"))
    # Without a given order the names are sorted, so that ids do not depend on which file happens to come first.
    source.names = tuple(names or sorted(order))
    new_id = np.array([source.names.index(name) for name in order], dtype=np.float32)
    for image, boxes in read:
        if boxes is not None and len(boxes):
            boxes = np.column_stack([new_id[boxes[:, 0].astype(int)], boxes[:, 1:]]).astype(np.float32)
        source.items.append(Item(image, boxes, split_of(image, root)))
    return source


def _is_coco(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(
        isinstance(content.get(k), list) for k in ("images", "annotations", "categories")
    )


def _read_coco(
    root: Path, files: list[Path], images: list[Path], names: Sequence[str] | None, missing: np.ndarray | None
) -> Source:
    source = Source([], ())
    sizes = _sizes(images, source)
    broken = {image for image, _ in source.problems}
    known: dict[Path, Item] = {}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_name[image.name].append(image)
    for path in files:
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            classes, target = _coco_classes(content)
            order = list(names or source.names or classes)
            if unknown := [name for name in classes if name not in order]:
                raise UserError(f"{path}: category '{unknown[0]}' is not among the names ({', '.join(order)}); "
                                "all files need the same categories")  # fmt: skip
            source.names = check_names(order, path)
            by_image = group_coco_annotations_by_image_id(content["annotations"])
            entries = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        except (KeyError, TypeError) as e:
            raise UserError(f"{path}: not valid COCO, missing or wrong {e}; export it again") from e
        if orphans := by_image.keys() - entries.keys():
            raise UserError(f"{path}: annotations for image_id {min(orphans)}, which is not among the images")
        split = split_of(path, root) or _split_in_name(path.stem)
        for image_id, file_name in entries.items():
            image = _locate(file_name, by_name, path, split, root)
            if image is None:
                source.problems.append((path.parent / file_name, f"{path}: image '{file_name}' is not in {root}"))
            elif image not in broken:
                try:
                    boxes = _coco_boxes(by_image.get(image_id, []), target, classes, source.names, sizes[image])
                    known[image] = Item(image, boxes, split or split_of(image, root))
                except (ValueError, KeyError, TypeError, IndexError) as e:
                    broken.add(image)
                    reason = f"missing {e}" if isinstance(e, KeyError) else e
                    source.problems.append((image, f"{path}: image '{file_name}': {reason}"))
    for image in images:
        if image in known:
            source.items.append(known[image])
        elif image not in broken:
            split = split_of(image, root)
            source.items.append(Item(image, None if split == "unlabeled" else missing, split))
    return source


def _coco_classes(content: dict) -> tuple[list[str], dict[int, int]]:
    """Class names by category id, and category id -> index; a parent category without boxes is no class."""
    used = {annotation["category_id"] for annotation in content["annotations"]}
    parents = {category.get("supercategory") for category in content["categories"]}
    categories = [c for c in content["categories"] if c["id"] in used or c["name"] not in parents]
    classes = coco_categories_to_classes(categories)
    check_names(classes, "the COCO categories")
    return classes, build_coco_class_index_mapping(categories, classes)


def _coco_boxes(
    annotations: list[dict], target: dict[int, int], classes: list[str], names: tuple[str, ...], size: tuple[int, int]
) -> np.ndarray:
    detections = coco_annotations_to_detections(annotations, size, with_masks=False)
    if len(detections) == 0:
        return np.zeros((0, 5), dtype=np.float32)
    if unknown := [int(i) for i in detections.class_id if int(i) not in target]:
        raise ValueError(f"category_id {unknown[0]} is not among the categories")
    ids = [names.index(classes[target[int(i)]]) for i in detections.class_id]
    return _to_rows(detections.xyxy, ids, size)


def _split_in_name(stem: str) -> str | None:
    for part in re.split(r"[^a-z0-9]+", stem.lower()):
        if match := _SPLIT_NAME.fullmatch(part):
            return _SPLITS[match[1].replace("unlabelled", "unlabeled")]
    return None


def _locate(file_name: str, by_name: dict[str, list[Path]], json_file: Path, split: str | None, root: Path) \
        -> Path | None:  # fmt: skip
    """The image a COCO entry means: the one whose path ends like it, next to the JSON or in its split if several do."""
    parts = Path(file_name.replace("\\", "/")).parts
    found = [p for p in by_name.get(parts[-1], []) if p.parts[-len(parts) :] == parts] if parts else []
    if len(found) > 1:
        near = [p for p in found if json_file.parent in p.parents and json_file.parent != root]
        found = near or [p for p in found if split_of(p, root) == split] or found
    return found[0] if found else None
