"""Test material: a few small images with boxes, and a detector that predicts boxes without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

NAMES = ("scratch", "pit", "stain")
TINY = str(Path(__file__).parent / "models" / "yolov8n-tiny.yaml")
"""The architecture that tests train where none is asked for by name."""
RTDETR_TINY = str(Path(__file__).parent / "models" / "rtdetr-tiny.yaml")
"""A detector of another family."""


def write_images(
    folder: Path, count: int = 4, classes: tuple[int, ...] = (0, 2), size: tuple[int, int] = (80, 60)
) -> Path:
    """Write ``count`` images of ``size`` (width, height) with one dark box of each class; return the data.yaml.

    ``val`` is the first image, ``test`` are all of them.
    """
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    paths = []
    for number in range(count):
        pixels = random.integers(120, 200, (size[1], size[0], 3), dtype=np.uint8)
        rows = []
        for place, class_id in enumerate(classes):
            x, y = 0.25 + 0.5 * (place % 2), 0.3 + 0.1 * (number % 4)
            left, top = int((x - 0.1) * size[0]), int((y - 0.1) * size[1])
            pixels[top : top + int(0.2 * size[1]), left : left + int(0.2 * size[0])] = 40 * class_id
            rows.append(f"{class_id} {x} {y} 0.2 0.2")
        paths.append(folder / "images" / f"plate {number}.png")
        Image.fromarray(pixels).save(paths[-1])
        (folder / "labels" / f"plate {number}.txt").write_text("\n".join(rows))
    (folder / "test.txt").write_text("".join(f"{path}\n" for path in paths))
    (folder / "val.txt").write_text(f"{paths[0]}\n")
    data = folder / "data.yaml"
    data.write_text(
        yaml.safe_dump(
            {"path": str(folder), "train": "val.txt", "val": "val.txt", "test": "test.txt", "names": list(NAMES)}
        )
    )
    return data


def save_detector(path: Path, seed: int = 0, names: Sequence[str] = NAMES) -> Path:
    """Save a tiny YOLOv8 with random weights whose boxes and scores differ from image to image; return ``path``."""
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(seed)
    yolo = YOLO(TINY)
    yolo.model = DetectionModel(TINY, nc=len(names), verbose=False)
    yolo.model.names = dict(enumerate(names))
    yolo.model.args = {"imgsz": 64}
    for level in yolo.model.model[-1].cv3:
        # a fresh head predicts background with scores of 1e-5, far below any tolerance
        torch.nn.init.normal_(level[-1].weight, std=0.5)
        torch.nn.init.zeros_(level[-1].bias)
    # batch statistics of noise, so that the signal does not fade on its way through 22 layers
    for module in yolo.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        yolo.model.train()(torch.rand(8, 3, 64, 64))
    path.parent.mkdir(parents=True, exist_ok=True)
    yolo.save(path)
    return path
