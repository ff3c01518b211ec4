"""Photos whose content is known, and the files that people and tools put beside them, built in memory.

A :data:`Tree` maps paths to contents; :func:`write_tree` puts it on the disk, in any order. A photo is gray grain with
one or two patches: class ``bright`` is one of gray 225, class ``dark`` one of gray 25, so that the pixels tell which
boxes are true (:mod:`tests.field.truth`).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
from PIL import Image

NAMES = ("bright", "dark")
GRAY = {"bright": 225, "dark": 25}
BOM = b"\xef\xbb\xbf"

DATA_YAML = "train: images/train\nval: images/val\ntest: images/test\nnames: [bright, dark]\n"


@dataclass(frozen=True)
class Link:
    """A symbolic link; ``target`` is relative to the folder of the link."""

    target: str


Content = bytes | str | Link
Tree = dict[str, Content]


@dataclass(frozen=True)
class Patch:
    """A defect: its class, and its corners [px], right and lower edge exclusive."""

    name: str
    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        """Corner and size [px], as in COCO."""
        return self.x1, self.y1, self.x2 - self.x1, self.y2 - self.y1

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The four corners [px], clockwise."""
        return [(self.x1, self.y1), (self.x2, self.y1), (self.x2, self.y2), (self.x1, self.y2)]


@dataclass(frozen=True)
class Photo:
    """Gray pixels (height, width) uint8, and what they show."""

    pixels: np.ndarray
    patches: tuple[Patch, ...]

    @property
    def width(self) -> int:
        """[px]"""
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        """[px]"""
        return self.pixels.shape[0]

    def without(self, name: str) -> Photo:
        """The same pixels, as somebody sees them who does not mark the class ``name``."""
        return Photo(self.pixels, tuple(patch for patch in self.patches if patch.name != name))


@cache
def photo(seed: int, width: int = 96, height: int = 64) -> Photo:
    """One patch for even seeds, two of different classes for odd ones, each in its half of the width."""
    rng = np.random.default_rng(seed)
    pixels = cv2.GaussianBlur(rng.normal(120, 14, (height, width)), (0, 0), 1) + rng.normal(0, 5, (height, width))
    patches = []
    for k in range(1 + seed % 2):
        name = NAMES[(seed // 2 + k) % 2]
        w = int(rng.integers(width * 14 // 100, width * 28 // 100))
        h = int(rng.integers(height * 20 // 100, height * 40 // 100))
        left = k * width // 2
        x = int(rng.integers(left + 2, left + width // 2 - w - 2))
        y = int(rng.integers(2, height - h - 2))
        pixels[y : y + h, x : x + w] = GRAY[name]
        patches.append(Patch(name, x, y, x + w, y + h))
    return Photo(pixels.clip(0, 255).astype(np.uint8), tuple(patches))


def background(seed: int) -> np.ndarray:
    """Pixels of a part without defects."""
    rng = np.random.default_rng(10_000 + seed)
    grain = cv2.GaussianBlur(rng.normal(120, 14, (64, 96)), (0, 0), 1) + rng.normal(0, 5, (64, 96))
    return grain.clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, suffix: str, **options: Any) -> bytes:
    """Pixels in the format of ``suffix``; 16-bit and float arrays as they are."""
    if isinstance(pixels, np.ndarray) and pixels.dtype != np.uint8:
        return cv2.imencode(suffix, pixels)[1].tobytes()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    kind = Image.registered_extensions()[suffix.lower()]
    usual: dict[str, Any] = {"PNG": {"compress_level": 1}, "JPEG": {"quality": 95}, "WEBP": {"quality": 95}}.get(
        kind, {}
    )
    stream = io.BytesIO()
    image.save(stream, format=kind, **{**usual, **options})
    return stream.getvalue()


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels as stored by a camera whose file says ``orientation`` (3, 6, or 8): viewers show ``pixels``."""
    return np.ascontiguousarray(np.rot90(pixels, {3: 2, 6: 1, 8: 3}[orientation]))


def oriented(pixels: np.ndarray, suffix: str, orientation: int) -> bytes:
    """A file of :func:`turned` pixels with the EXIF entry that turns them back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(turned(pixels, orientation), suffix, exif=exif)


Writer = Callable[[Photo, str], Content]
"""What a tool writes about a photo of that file name."""


def yolo(shown: Photo, _: str = "", *, names: Sequence[str] = NAMES, first: int = 0) -> str:
    """YOLO rows, the ids counted from ``first``."""
    rows = (
        f"{names.index(p.name) + first} {(p.x1 + p.x2) / 2 / shown.width:.6f} {(p.y1 + p.y2) / 2 / shown.height:.6f} "
        f"{(p.x2 - p.x1) / shown.width:.6f} {(p.y2 - p.y1) / shown.height:.6f}\n"
        for p in shown.patches
    )
    return "".join(rows)


def yolo_polygons(shown: Photo, _: str = "", *, middle: bool = True) -> str:
    """YOLO rows of polygons: the corners, and the ``middle`` of an edge, without which they could be turned boxes."""
    rows = ""
    for p in shown.patches:
        points = [*p.corners, (p.x1, (p.y1 + p.y2) / 2)] if middle else p.corners
        rows += f"{NAMES.index(p.name)} " + " ".join(f"{x / shown.width:.6f} {y / shown.height:.6f}" for x, y in points)
        rows += "\n"
    return rows


def voc(
    shown: Photo,
    image: str,
    *,
    size: tuple[int, int] | None = None,
    spelled: Mapping[str, str] | None = None,
    more: str = "",
) -> str:
    """Pascal VOC: pixels counted from 1, both edges inside the box.

    Args:
        shown: What is annotated.
        image: The file name that it states.
        size: The (width, height) that it states, if not the true one.
        spelled: Other spellings of the class names.
        more: Additional XML at the end.
    """
    width, height = size or (shown.width, shown.height)
    objects = "".join(
        f"<object><name>{escape((spelled or {}).get(p.name, p.name))}</name><pose>Unspecified</pose>"
        f"<truncated>0</truncated><difficult>0</difficult><bndbox><xmin>{p.x1 + 1}</xmin><ymin>{p.y1 + 1}</ymin>"
        f"<xmax>{p.x2}</xmax><ymax>{p.y2}</ymax></bndbox></object>"
        for p in shown.patches
    )
    return (
        f"<annotation><folder>images</folder><filename>{escape(image)}</filename>"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>{objects}{more}</annotation>"
    )


CATEGORIES = ({"id": 1, "name": "bright", "supercategory": "none"}, {"id": 2, "name": "dark", "supercategory": "none"})


def coco(
    entries: Iterable[tuple[str, Photo]],
    categories: Sequence[Mapping[str, Any]] = CATEGORIES,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """COCO for (file name, photo), the ids of images from 1; ``size`` instead of the true one."""
    ids = {category["name"]: category["id"] for category in categories}
    content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": list(categories)}
    for i, (name, shown) in enumerate(entries, 1):
        width, height = size or (shown.width, shown.height)
        content["images"].append({"id": i, "file_name": name, "width": width, "height": height})
        for p in shown.patches:
            box = {"id": len(content["annotations"]) + 1, "image_id": i, "category_id": ids[p.name], "iscrowd": 0}
            content["annotations"].append({**box, "bbox": list(p.xywh), "area": p.xywh[2] * p.xywh[3]})
    return content


def labelme(shown: Photo, image: str, *, size: tuple[int, int] | None = None, kind: str = "rectangle") -> str:
    """LabelMe and the tools that write the same: rectangles by two corners, or ``kind="polygon"``."""
    width, height = size or (shown.width, shown.height)
    shapes: list[dict[str, Any]] = [
        {
            "label": p.name,
            "points": [p.corners[0], p.corners[2]] if kind == "rectangle" else p.corners,
            "shape_type": kind,
            "group_id": None,
            "flags": {},
        }
        for p in shown.patches
    ]
    content: dict[str, Any] = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    return json.dumps({**content, "imageHeight": height, "imageWidth": width})


def pairs(
    image: str,
    label: str | None = None,
    writer: Writer = yolo,
    seeds: Iterable[int] = range(8),
    *,
    minus: int = 0,
    **encoding: Any,
) -> Tree:
    """Images and their label files.

    Args:
        image: Path with ``{}`` for the stem ``p000``, ``p001``, ...; its suffix says the format.
        label: Path of the label file likewise; None: no labels.
        writer: What stands in it.
        seeds: Of the photos, which are also their numbers.
        minus: Taken off the numbers, so that other photos get the same names.
        encoding: Options of the image format.
    """
    tree: Tree = {}
    for seed in seeds:
        stem, shown = f"p{seed - minus:03d}", photo(seed)
        path = image.format(stem)
        tree[path] = encoded(shown.pixels, Path(path).suffix, **encoding)
        if label is not None:
            tree[label.format(stem)] = writer(shown, Path(path).name)
    return tree


SEEDS = {"train": range(4), "val": range(4, 6), "test": range(6, 8)}
"""Photos of the three splits; both classes occur in each."""


def in_splits(
    image: str, label: str | None, writer: Writer = yolo, words: Mapping[str, str] | None = None, **encoding: Any
) -> Tree:
    """:func:`pairs` in three splits; ``{split}`` in the paths is replaced by the split, or by its name in ``words``."""
    tree: Tree = {}
    for split, seeds in SEEDS.items():
        word = (words or {}).get(split, split)
        labels = None if label is None else label.replace("{split}", word)
        tree.update(pairs(image.replace("{split}", word), labels, writer, seeds, **encoding))
    return tree


def sound(suffix: str = ".png", **encoding: Any) -> Tree:
    """A sound set of 4, 2 and 2 images with a data set YAML: what a case then changes."""
    return {
        **in_splits(f"images/{{split}}/{{}}{suffix}", "labels/{split}/{}.txt", **encoding),
        "data.yaml": DATA_YAML,
    }


def loose(suffix: str = ".png") -> Tree:
    """Eight images without splits, and their labels with a list of the classes."""
    return {**pairs(f"images/{{}}{suffix}", "labels/{}.txt"), "classes.txt": "bright\ndark\n"}


def below(folder: str, tree: Tree) -> Tree:
    """The tree moved into ``folder``."""
    return {f"{folder}/{path}": content for path, content in tree.items()}


def changed(tree: Tree, change: Callable[[bytes], bytes | str], *paths: str) -> Tree:
    """The tree with ``change`` applied to these files, or to all files with a suffix such as ``.txt``."""
    return {
        path: change(raw(content)) if any(path == p or path.endswith(p) for p in paths) else content
        for path, content in tree.items()
    }


def raw(content: Content) -> bytes:
    """The bytes of a file."""
    assert not isinstance(content, Link)
    return content.encode() if isinstance(content, str) else content


def zipped(tree: Tree, name: Callable[[str], str] = str) -> bytes:
    """A zip file of the tree; ``name`` changes the names of its members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in tree.items():
            member = zipfile.ZipInfo("-")
            member.filename = name(path)
            archive.writestr(member, raw(content))
    return stream.getvalue()


def write_tree(tree: Tree, root: Path, *, backwards: bool = False) -> None:
    """Write the files in the order of the tree, or from the last to the first."""
    for path in reversed(tree) if backwards else tree:
        target, content = root / path, tree[path]
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            target.symlink_to(content.target)
        else:
            target.write_bytes(raw(content))
