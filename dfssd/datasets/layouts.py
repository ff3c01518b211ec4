"""Detection of the layout of a folder, and the reader for YOLO label files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfssd.datasets.coco import is_coco, read_coco
from dfssd.datasets.image_files import find_images, map_files
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import Item, check_names
from dfssd.datasets.sources import Source, pair, split_of, usable_sizes
from dfssd.datasets.voc import read_voc
from dfssd.errors import UserError

EXPECTED = (
    "expected images/ with labels/ (YOLO), image/ with label/ (CR7-DET), images with .xml files (Pascal VOC) "
    "or a COCO .json"
)


def read_folder(root: Path, names: Sequence[str] | None, missing: np.ndarray | None) -> Source:
    """Read the data set in ``root``, whatever its layout.

    Args:
        root: Folder.
        names: Class names in id order, or None to take them from the source.
        missing: Boxes of an image without label: None (unlabeled) or a (0, 5) array (defect-free).

    Raises:
        UserError: There are no images, no labels, or the class names do not match.
    """
    images = find_images(root)
    if not images:
        raise UserError(f"no images in {root}; {EXPECTED}")
    coco = [path for path in sorted(root.rglob("*.json")) if is_coco(path)]
    if coco:
        return read_coco(root, coco, images, names, missing)
    xml = pair(root, images, root.rglob("*.[xX][mM][lL]"))
    if xml:
        return read_voc(root, images, xml, names, missing)
    txt = pair(root, images, root.rglob("*.[tT][xX][tT]"))
    if txt:
        return read_yolo(root, [(i, txt.get(i), split_of(i, root)) for i in images], names, missing)
    raise UserError(f"no labels for the {len(images)} images in {root}; {EXPECTED}")


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
    names = names if names is not None else _listed_names(root)
    source = Source([], tuple(names or ()))
    sizes = usable_sizes([image for image, _, _ in entries], source)
    usable = [entry for entry in entries if entry[0] in sizes]
    boxes = _read_labels([label for _, label, _ in usable if label is not None], None if names is None else len(names))
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


def _listed_names(root: Path) -> tuple[str, ...] | None:
    """Class names of the ``classes.txt`` nearest to ``root``, if there is one."""
    listed = sorted(root.rglob("classes.txt"), key=lambda p: len(p.parts))
    if not listed:
        return None
    lines = listed[0].read_text(encoding="utf-8-sig").splitlines()
    return check_names([line for line in lines if line.strip()], listed[0])


def _read_labels(files: Sequence[Path], n_classes: int | None) -> dict[Path, np.ndarray | str]:
    """Boxes of each label file, or the reason why it cannot be used."""

    def read(file: Path) -> np.ndarray | str:
        try:
            return read_label_file(file, n_classes)
        except UserError as e:
            return str(e)

    return dict(zip(files, map_files(read, files, "Reading labels"), strict=True))
