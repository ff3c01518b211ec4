"""Loading of ``data=`` as a :class:`DetectionSet`.

Folders and zip files are converted once into ``data_dir/<name>-<hash>/{images,labels}``, the layout Ultralytics reads;
the hash covers content and settings, so a later run reuses the conversion and a changed source gets a new one.
A data set YAML of Ultralytics is used in place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.image_files import map_files, safe_names
from dfssd.datasets.importing import (
    Listing,
    as_list,
    check_problems,
    content_fingerprint,
    conversion,
    import_once,
    is_converted,
    is_yaml,
    read_any,
    resolve_source,
    short_name,
    target_folder,
    usual_names,
    with_more_items,
)
from dfssd.datasets.label_files import format_labels, read_label_file
from dfssd.datasets.layouts import read_folder
from dfssd.datasets.preprocessing import Preprocess
from dfssd.datasets.records import DetectionSet, Item, check_names
from dfssd.datasets.sources import Source
from dfssd.datasets.yaml_files import read_dataset_yaml, read_unlabeled
from dfssd.errors import UserError
from dfssd.files import link_or_copy

_CONVERSION = 1
"""Raised when the conversion changes, so that older converted folders are not mistaken for current ones."""


def load_dataset(
    source: str,
    data_dir: Path,
    *,
    unlabeled: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    skip_bad: bool,
    missing_label: str,
    preprocess: Preprocess | None = None,
) -> DetectionSet:
    """Load the data set that ``source`` names.

    Args:
        source: ``demo``; a data set YAML of Ultralytics; a folder or .zip in the layout of CR7-DET, Pascal VOC, COCO
            or YOLO; or the name of a card in ``data/*.yaml``.
        data_dir: Folder for converted and downloaded data sets.
        unlabeled: Additional unlabeled images: folders or .txt lists.
        names: Class names in id order, if the source has none.
        skip_bad: Leave out unusable images and list them in ``skipped`` instead of failing.
        missing_label: An image without label file is "unlabeled" or "background" (free of defects).
        preprocess: Changes to the pixels, made once on import.

    Returns:
        The data set; images are absolute paths.

    Raises:
        UserError: The source does not exist, is not a data set, or has unusable images or labels.
    """
    data_dir = Path(data_dir).resolve()
    if names is not None:
        names = check_names(names, "names=")
    missing = np.zeros((0, 5), dtype=np.float32) if missing_label == "background" else None
    if preprocess is not None and not preprocess.changes_pixels:
        preprocess = None
    rules = _ImportRules(data_dir, names, missing, skip_bad, preprocess)
    path = resolve_source(source, data_dir)
    dataset = rules.from_yaml(path) if is_yaml(path) else rules.from_folder(path)
    if unlabeled:
        extra = rules.unlabeled(as_list(unlabeled), dataset.name)
        dataset = with_more_items(dataset, extra.items, extra.skipped)
    return dataset


@dataclass(frozen=True)
class _ImportRules:
    """How sources are read and converted; for the attributes see :func:`load_dataset`."""

    data_dir: Path
    names: tuple[str, ...] | None
    missing: np.ndarray | None
    skip_bad: bool
    preprocess: Preprocess | None

    def from_yaml(self, path: Path) -> DetectionSet:
        """The images that a data set YAML lists, in place unless their pixels change."""
        dataset = self._checked(read_dataset_yaml(path, self.names, self.missing), path.stem, path)
        return self._preprocessed(dataset)

    def from_folder(self, path: Path) -> DetectionSet:
        """The converted form of a folder or zip file, made now or found from an earlier run."""
        usual = usual_names(path) if self.names is None else None
        settings = (_CONVERSION, self.names, usual, self.missing is None, self.skip_bad, self.preprocess)
        name = short_name(path)
        target = target_folder(self.data_dir, name, content_fingerprint(path), settings)

        def convert(root: Path) -> None:
            found = read_any(
                root,
                path,
                lambda file: read_dataset_yaml(file, self.names, self.missing, inside=root),
                lambda folder: read_folder(folder, self.names or usual, self.missing),
            )
            _write_converted(self._checked(found, name, path, root), target, self.preprocess)

        import_once(path, target, convert)
        return _read_converted(target)

    def unlabeled(self, entries: list[str], beside: str) -> DetectionSet:
        """Images without labels from folders and lists, for the data set called ``beside``."""
        found = self._checked(Source(*read_unlabeled(entries)), f"{beside}-unlabeled", ", ".join(entries))
        return self._preprocessed(found)

    def _checked(self, source: Source, name: str, where: Path | str, root: Path | None = None) -> DetectionSet:
        """Turn the result of a reader into a data set, or into one message about all problems."""
        problems = check_problems(source.problems, len(source.items), where, self.skip_bad, root)
        return DetectionSet(name, source.names, tuple(source.items), tuple(problems))

    def _preprocessed(self, dataset: DetectionSet) -> DetectionSet:
        """The data set as it is, or with preprocessed pixels in a folder of its own."""
        if self.preprocess is None:
            return dataset
        files = [(str(i.image), i.image.stat().st_size, i.image.stat().st_mtime_ns, i.split) for i in dataset.items]
        boxes = [None if i.boxes is None else i.boxes.tolist() for i in dataset.items]
        settings = (_CONVERSION, files, boxes, dataset.names, dataset.skipped, repr(self.preprocess))
        target = target_folder(self.data_dir, dataset.name, *settings)
        if not is_converted(target):
            _write_converted(dataset, target, self.preprocess)
        return _read_converted(target)


def _write_converted(dataset: DetectionSet, target: Path, preprocess: Preprocess | None) -> None:
    """Write ``target/{images,labels,dataset.json}``, whole or not at all."""
    root = Path(os.path.commonpath([item.image.parent for item in dataset.items]))
    names = safe_names([item.image.relative_to(root) for item in dataset.items])
    with conversion(target) as partial:
        for folder in ("images", "labels"):
            (partial / folder).mkdir()

        def write(job: tuple[Item, str]) -> None:
            item, name = job
            boxes = item.boxes
            image = partial / "images" / name
            if preprocess is None:
                link_or_copy(item.image, image)
            else:
                boxes = _write_preprocessed(item, image, preprocess)
            if boxes is not None:
                label = partial / "labels" / f"{Path(name).stem}.txt"
                label.write_text(format_labels(boxes), encoding="utf-8", newline="\n")

        map_files(write, list(zip(dataset.items, names, strict=True)), f"Importing {dataset.name}")
        rows = [[name, item.split] for item, name in zip(dataset.items, names, strict=True)]
        Listing(dataset.name, dataset.names, rows, dataset.skipped).write(partial)


def _write_preprocessed(item: Item, target: Path, preprocess: Preprocess) -> np.ndarray | None:
    """Write the changed pixels of ``item`` to ``target``; return its changed boxes."""
    pixels = cv2.imdecode(np.fromfile(item.image, dtype=np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UserError(f"{item.image}: OpenCV cannot decode it; convert it to .png or .jpg")
    try:
        pixels, boxes = preprocess.apply(pixels, item.boxes)
    except UserError as e:
        raise UserError(f"{item.image}: {e}") from e
    # Encoded in memory, since OpenCV cannot write to all paths on Windows.
    cv2.imencode(target.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tofile(target)
    return boxes


def _read_converted(folder: Path) -> DetectionSet:
    listing = Listing.read(folder)
    n_classes = len(listing.names)

    def read(row: list[str | None]) -> Item:
        name, split = str(row[0]), row[1]
        label = folder / "labels" / f"{Path(name).stem}.txt"
        return Item(folder / "images" / name, read_label_file(label, n_classes) if label.exists() else None, split)

    items = map_files(read, listing.items, f"Loading {listing.name}")
    return DetectionSet(listing.name, listing.names, tuple(items), listing.skipped)
