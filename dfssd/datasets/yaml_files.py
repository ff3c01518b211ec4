"""Data set YAMLs of Ultralytics, and the entry ``unlabeled:`` that we add to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import img2label_paths
from ultralytics.utils import DATASETS_DIR

from dfssd.datasets.image_files import SUFFIXES, find_images, image_size, map_files
from dfssd.datasets.layouts import read_yolo
from dfssd.datasets.records import Item, check_names
from dfssd.datasets.sources import Source
from dfssd.errors import UserError
from dfssd.files import load_yaml


@dataclass(frozen=True)
class Entries:
    """What a data set YAML lists.

    Attributes:
        names: Class names in id order.
        images: Split of each image.
        root: What its paths are relative to.
        content: The parsed file.
    """

    names: tuple[str, ...]
    images: dict[Path, str]
    root: Path
    content: dict[str, Any]


def read_dataset_yaml(
    file: Path, names: Sequence[str] | None, missing: np.ndarray | None, inside: Path | None = None
) -> Source:
    """Read the images and labels that a data set YAML lists, resolving paths as Ultralytics does.

    Args:
        file: The YAML: ``path``, ``train``, ``val``, ``test``, ``unlabeled`` (folder, list of folders, .txt list) and
            ``names`` or ``nc``.
        names: Class names in id order, instead of those in the file.
        missing: Boxes of an image without label file: None (unlabeled) or a (0, 5) array (defect-free).
        inside: The folder of an unpacked or imported data set: paths that do not exist as written are looked for
            here, since such files often carry the paths of another machine.

    Raises:
        UserError: The file is not a data set YAML, an entry does not exist, or an image is in two splits.
    """
    found = read_entries(file, names, inside)
    entries = []
    for image, split in found.images.items():
        label = Path(img2label_paths([str(image)])[0])
        entries.append((image, label if label.exists() else None, split))
    source = read_yolo(file.parent, entries, found.names, missing)
    if not source.items and not source.problems:
        raise UserError(f"{file}: its entries contain no images; correct path:, train: and val:")
    return source


def read_entries(file: Path, names: Sequence[str] | None, inside: Path | None = None) -> Entries:
    """Read what a data set YAML lists, with any kind of labels; arguments and errors as above."""
    content = load_yaml(file)
    if not isinstance(content, dict) or not content.get("train"):
        raise UserError(f"{file} has no entry train:; a data set YAML needs train:, names: and usually val:")
    if "validation" in content and "val" not in content:
        content["val"] = content.pop("validation")
    names = names or _names(content, file)
    root = _root(content, file, inside)
    images: dict[Path, str] = {}
    for split in ("train", "val", "test", "unlabeled"):
        for image in _images(content.get(split), root, file, split, inside):
            if images.setdefault(image, split) != split:
                raise UserError(f"{file}: {image} is in both {images[image]}: and {split}:; keep it in one of them")
    return Entries(tuple(names), images, root, content)


def read_unlabeled(entries: Sequence[str]) -> tuple[list[Item], tuple[str, ...], list[tuple[Path, str]]]:
    """Unlabeled images from folders and .txt lists: items, no names, and (file, reason) of unusable ones.

    Raises:
        UserError: An entry does not exist or contains no image.
    """
    images = []
    for entry in entries:
        found = _listed(Path(os.path.abspath(Path(entry).expanduser())), f"unlabeled={entry}")
        if not found:
            raise UserError(f"unlabeled={entry} contains no image; expected {', '.join(sorted(SUFFIXES))}")
        images += found
    images = list(dict.fromkeys(images))
    items, problems = [], []
    for image, size in zip(images, map_files(image_size, images, "Checking images"), strict=True):
        if isinstance(size, str):
            problems.append((image, f"{image}: {size}"))
        else:
            items.append(Item(image, None, "unlabeled"))
    return items, (), problems


def _names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = content.get("names")
    if names is None:
        if not isinstance(content.get("nc"), int) or content["nc"] < 1:
            raise UserError(f"{file} has neither names: nor a valid nc:; list the class names in id order")
        return tuple(f"class_{i}" for i in range(content["nc"]))
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{file}: the ids in names: must be 0 to {len(names) - 1} without gaps")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise UserError(f"{file}: names: must be a list, or a mapping from id to name")
    if content.get("nc") not in (None, len(names)):
        raise UserError(f"{file}: nc: {content['nc']} but {len(names)} names; make them agree")
    return check_names(names, file)


def _root(content: dict[str, Any], file: Path, inside: Path | None) -> Path:
    root = Path(content.get("path") or file.parent).expanduser()
    if inside is not None:
        return root if root.is_absolute() and inside in root.parents else file.parent
    if not root.is_absolute():
        # Ultralytics takes it from the working directory, then from its own folder of data sets; we try the
        # folder of the YAML first, which is usually meant and does not depend on the working directory.
        options = [file.parent / root, root, Path(DATASETS_DIR) / root]
        root = next((option for option in options if option.exists()), options[0])
    return Path(os.path.abspath(root))


def _images(value: object, root: Path, file: Path, split: str, inside: Path | None) -> list[Path]:
    if not value:
        return []
    images = []
    for entry in value if isinstance(value, list) else [value]:
        path = Path(os.path.abspath(root / str(entry)))
        if not path.exists() and str(entry).startswith("../"):  # as in exports of Roboflow
            path = Path(os.path.abspath(root / str(entry)[3:]))
        if inside is not None and inside not in [path, *path.parents]:
            raise UserError(f"{file}: {split}: {entry} points outside of the data set; correct the path")
        images += _listed(path, f"{file}: {split}: {entry}")
    return list(dict.fromkeys(images))


def _listed(path: Path, what: str) -> list[Path]:
    """Images of a folder, a .txt list (a path per line, ``./`` = beside the list), or a single image."""
    if path.is_dir():
        return find_images(path)
    if not path.is_file():
        raise UserError(f"{what} does not exist ({path}); correct the path")
    if path.suffix.lower() in SUFFIXES:
        return [path]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise UserError(f"{what} is neither a folder, an image nor a text list; correct the path") from e
    images = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            image = path.parent / line.strip()
            if not image.exists():
                raise UserError(f"{path}:{number}: image {line.strip()} does not exist; correct the list")
            images.append(Path(os.path.abspath(image)))  # links are not resolved: labels lie beside the link
    return images
