"""Small data sets in the layouts of real releases, written to a temporary folder."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CR7_NAMES = ("inclusions", "dents", "oil spots", "pits", "punching", "linear", "macular")


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Noise that is a different image for each seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_picture(path: Path, seed: int, width: int = 64, height: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, width, height).save(path)
    return path


def write_label(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def cr7(root: Path, per_class: int = 2) -> Path:
    """``lengzha/image/*.jpg`` and ``lengzha/label/*.txt``; two of the names hold a space."""
    seed = 0
    for class_id, name in enumerate(CR7_NAMES):
        for i in range(1, per_class + 1):
            write_picture(root / "lengzha" / "image" / f"{name}{i}.jpg", seed)
            write_label(root / "lengzha" / "label" / f"{name}{i}.txt", f"{class_id} 0.5 0.5 0.25 0.5")
            seed += 1
    return root


def voc_xml(boxes: Sequence[tuple[str, int, int, int, int]], width: int = 64, height: int = 48) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


def neu(root: Path) -> Path:
    """``IMAGES/*.jpg`` and ``ANNOTATIONS/*.xml``; the first file in name order holds the last class."""
    for i, boxes in enumerate(
        ([("scratches", 1, 1, 32, 24)], [("crazing", 17, 13, 48, 36), ("patches", 1, 1, 64, 48)], [])
    ):
        write_picture(root / "IMAGES" / f"plate_{i}.jpg", i)
        (root / "ANNOTATIONS").mkdir(exist_ok=True)
        (root / "ANNOTATIONS" / f"plate_{i}.xml").write_text(voc_xml(boxes), encoding="utf-8")
    return root


def coco_json(
    files: Mapping[str, Sequence[tuple[int, Sequence[float]]]], categories: Mapping[int, str] | None = None
) -> str:
    """COCO text for {file name: [(category id, [x, y, w, h] px)]}; category ids have gaps, as in COCO itself."""
    categories = categories or {3: "pit", 7: "scratch"}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for i, (name, boxes) in enumerate(files.items(), 1):
        images.append({"id": i, "file_name": name, "width": 64, "height": 48})
        for category, box in boxes:
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": category, "bbox": list(box)})
    listed = [{"id": i, "name": name, "supercategory": "none"} for i, name in categories.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": listed})


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return file
