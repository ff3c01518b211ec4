"""What the readers of all layouts share: result type, pairing of files, checks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dfssd.datasets.image_files import image_size, map_files
from dfssd.datasets.label_files import clip_box
from dfssd.datasets.records import Item

_ROLE = re.compile(r"(jpeg|png)?images?|labels?|masks?|annotations?|xmls?|labels?_?txt", re.IGNORECASE)
"""Names of folders that state the kind of files, ignored when images and labels are paired."""

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test", "unlabeled": "unlabeled"}
_SPLIT_NAME = re.compile(r"(train|valid|val|test|unlabell?ed)(?:ing|idation|ation)?(?:[-_]?\d+)?", re.IGNORECASE)


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


def split_of(path: Path, root: Path) -> str | None:
    """The split that a folder between ``root`` and ``path`` names, else None."""
    return split_named(path.relative_to(root).parts[:-1])


def split_named(words: Iterable[str]) -> str | None:
    """The split that the first matching word names ("train2017", "valid", "testing"), else None."""
    for word in words:
        if match := _SPLIT_NAME.fullmatch(word):
            return _SPLITS[match[1].lower().replace("unlabelled", "unlabeled")]
    return None


def pair(root: Path, images: Iterable[Path], labels: Iterable[Path]) -> dict[Path, Path]:
    """Label file of each image that has one.

    A label belongs to the image with the same path below ``root``, folders such as ``images`` and ``labels`` left
    out; otherwise to the only image with its stem. Letter case is ignored.
    """
    by_key, by_stem = {}, defaultdict(list)
    for label in sorted(labels):
        by_key[pairing_key(label, root)] = label
        by_stem[label.stem.casefold()].append(label)
    images = list(images)
    stems = Counter(image.stem.casefold() for image in images)
    pairs = {}
    for image in images:
        stem = image.stem.casefold()
        if (same_key := by_key.get(pairing_key(image, root))) is not None:
            pairs[image] = same_key
        elif stems[stem] == 1 and len(by_stem[stem]) == 1:
            pairs[image] = by_stem[stem][0]
    return pairs


def pairing_key(path: Path, root: Path) -> tuple[str, ...]:
    """What an image and its label share: the path below ``root`` without suffix and folders such as ``labels``."""
    folders = path.relative_to(root).parts[:-1]
    return (*(part.casefold() for part in folders if not _ROLE.fullmatch(part)), path.stem.casefold())


def usable_sizes(images: Sequence[Path], source: Source) -> dict[Path, tuple[int, int]]:
    """(width, height) of the usable ``images``; the others become problems of ``source``."""
    sizes = {}
    for image, size in zip(images, map_files(image_size, images, "Checking images"), strict=True):
        if isinstance(size, str):
            source.problems.append((image, f"{image}: {size}"))
        else:
            sizes[image] = size
    return sizes


def pixel_boxes(xyxy: np.ndarray, ids: Iterable[int], size: tuple[int, int]) -> np.ndarray:
    """Pixel boxes (n, 4) and class ids as (n, 5) rows; ValueError if a box is not inside the image."""
    width, height = size
    rows = []
    for class_id, (x1, y1, x2, y2) in zip(ids, np.asarray(xyxy, dtype=np.float64).tolist(), strict=True):
        box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        try:
            rows.append([class_id, *clip_box(*box)])
        except ValueError as e:
            corners = f"{x1:g} {y1:g} {x2:g} {y2:g}"
            raise ValueError(f"box x1 y1 x2 y2 = {corners} in an image of {width}x{height} px: {e}") from e
    return np.unique(np.array(rows, dtype=np.float32).reshape(-1, 5), axis=0)
