"""From whatever ``data=`` names to a :class:`DetectionSet`.

Folders and zip files are converted once into ``data_dir/<name>-<hash>/{images,labels}``, the layout Ultralytics reads;
the hash covers content and settings, so a later run finds the conversion again and a changed source makes a new one.
A data set YAML of Ultralytics is used in place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.image_files import map_files, safe_names
from dfssd.datasets.importing import (
    check_problems,
    content_fingerprint,
    conversion,
    is_converted,
    link_or_copy,
    opened_source,
    own_yaml,
    resolve_source,
    target_folder,
    usual_names,
)
from dfssd.datasets.label_files import format_labels, read_label_file
from dfssd.datasets.layouts import read_folder
from dfssd.datasets.preprocessing import Preprocess
from dfssd.datasets.records import DetectionSet, Item, check_names
from dfssd.datasets.sources import Source
from dfssd.datasets.yaml_files import read_dataset_yaml, read_unlabeled
from dfssd.errors import UserError
from dfssd.files import write_json

_CONVERSION = 1
"""Raised when the conversion changes, so that older converted folders are not taken for current ones."""


def load_dataset(
    source: str,
    data_dir: Path,
    *,
    unlabeled: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    skip_bad: bool = False,
    missing_label: str = "unlabeled",
    preprocess: Preprocess | None = None,
) -> DetectionSet:
    """Load the data set that ``source`` names.

    Args:
        source: ``demo``; a data set YAML of Ultralytics; a folder or .zip in the layout of CR7-DET, Pascal VOC, COCO
            or YOLO; or the name of a card in ``data/*.yaml``.
        data_dir: Folder for converted and downloaded data sets.
        unlabeled: More unlabelled images: folders or .txt lists.
        names: Class names in id order, where the source does not carry them.
        skip_bad: Leave out unusable images and list them in ``skipped`` instead of failing.
        missing_label: An image without label file is "unlabeled" or "background" (free of defects).
        preprocess: Changes to the pixels, made once on import.

    Returns:
        The data set; images are absolute paths.

    Raises:
        UserError: The source does not exist, is no data set, or has unusable images or labels.
    """
    data_dir = Path(data_dir).resolve()
    if names is not None:
        names = check_names(names, "names=")
    missing = np.zeros((0, 5), dtype=np.float32) if missing_label == "background" else None
    if preprocess is not None and not preprocess.changes_pixels:
        preprocess = None
    path = resolve_source(source, data_dir)
    if path.suffix.lower() in {".yaml", ".yml"}:
        dataset = _finish(read_dataset_yaml(path, names, missing), path.stem, path, skip_bad)
        if preprocess is not None:
            dataset = _convert_items(dataset, data_dir, preprocess)
    else:
        dataset = _import(path, data_dir, names, missing, skip_bad, preprocess)
    if unlabeled:
        more = [unlabeled] if isinstance(unlabeled, str) else list(unlabeled)
        extra = _finish(Source(*read_unlabeled(more)), f"{dataset.name}-unlabeled", ", ".join(more), skip_bad)
        if preprocess is not None:
            extra = _convert_items(extra, data_dir, preprocess)
        known = {item.image for item in dataset.items}
        items = [*dataset.items, *(item for item in extra.items if item.image not in known)]
        dataset = replace(dataset, items=tuple(items), skipped=dataset.skipped + extra.skipped)
    return dataset


def _import(
    path: Path,
    data_dir: Path,
    names: Sequence[str] | None,
    missing: np.ndarray | None,
    skip_bad: bool,
    preprocess: Preprocess | None,
) -> DetectionSet:
    """The converted form of a folder or zip file, made now or found from an earlier run."""
    usual = usual_names(path) if names is None else None
    settings = (_CONVERSION, names, usual, missing is None, skip_bad, preprocess)
    name = path.stem if path.is_file() else path.name
    target = target_folder(data_dir, name, content_fingerprint(path), settings)
    if not is_converted(target):
        with opened_source(path, target) as root:
            found = _finish(_read_any(root, path, names, usual, missing), name, path, skip_bad, root)
            _write_converted(found, target, preprocess)
    return _read_converted(target)


def _read_any(
    root: Path, path: Path, names: Sequence[str] | None, usual: Sequence[str] | None, missing: np.ndarray | None
) -> Source:
    """Read a folder: by its data set YAML if it has one, else by its layout and the usual names of its card."""
    if file := own_yaml(root):
        return read_dataset_yaml(file, names, missing, inside=root)
    try:
        return read_folder(root, names or usual, missing)
    except UserError as e:
        raise UserError(str(e).replace(str(root), str(path))) from e


def _finish(source: Source, name: str, where: Path | str, skip_bad: bool, root: Path | None = None) -> DetectionSet:
    """Turn what a reader found into a data set, or into one message about everything that is wrong."""
    problems = check_problems(source.problems, len(source.items), where, skip_bad, root)
    return DetectionSet(name, source.names, tuple(source.items), tuple(problems))


def _convert_items(dataset: DetectionSet, data_dir: Path, preprocess: Preprocess) -> DetectionSet:
    """The same data set with preprocessed pixels, in a folder of its own."""
    files = [(str(i.image), i.image.stat().st_size, i.image.stat().st_mtime_ns, i.split) for i in dataset.items]
    boxes = [None if i.boxes is None else i.boxes.tolist() for i in dataset.items]
    settings = (_CONVERSION, files, boxes, dataset.names, dataset.skipped, repr(preprocess))
    target = target_folder(data_dir, dataset.name, *settings)
    if not is_converted(target):
        _write_converted(dataset, target, preprocess)
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
        listing = {
            "name": dataset.name,
            "names": dataset.names,
            "items": [[name, item.split] for item, name in zip(dataset.items, names, strict=True)],
            "skipped": [[str(file), reason] for file, reason in dataset.skipped],
        }
        write_json(partial / "dataset.json", listing)


def _write_preprocessed(item: Item, target: Path, preprocess: Preprocess) -> np.ndarray | None:
    """Write the changed pixels of ``item`` to ``target``; return its changed boxes."""
    pixels = cv2.imdecode(np.fromfile(item.image, dtype=np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UserError(f"{item.image}: OpenCV cannot decode it; convert it to .png or .jpg")
    try:
        pixels, boxes = preprocess.apply(pixels, item.boxes)
    except UserError as e:
        raise UserError(f"{item.image}: {e}") from e
    # An encoder takes no path here, since OpenCV cannot write to all paths on Windows.
    cv2.imencode(target.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tofile(target)
    return boxes


def _read_converted(folder: Path) -> DetectionSet:
    listing = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    n_classes = len(listing["names"])

    def read(entry: tuple[str, str | None]) -> Item:
        name, split = entry
        label = folder / "labels" / f"{Path(name).stem}.txt"
        return Item(folder / "images" / name, read_label_file(label, n_classes) if label.exists() else None, split)

    items = map_files(read, listing["items"], f"Loading {listing['name']}")
    skipped = tuple((Path(file), reason) for file, reason in listing["skipped"])
    return DetectionSet(listing["name"], tuple(listing["names"]), tuple(items), skipped)
