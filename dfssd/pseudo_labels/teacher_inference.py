"""The teacher looks at the unlabelled images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO
from ultralytics.utils import TQDM
from ultralytics.utils.patches import imread

from dfssd.errors import UserError
from dfssd.pseudo_labels.labels import ImagePrediction

READERS = 4
"""Threads that decode the images of a batch."""


def normalize_boxes(boxes_xyxy: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip pixel boxes to the image, normalise them and drop those that have no area left.

    Args:
        boxes_xyxy: (n, 4) corners [px].
        width: Image width [px].
        height: Image height [px].

    Returns:
        Boxes that are left, (k, 4) float64 xywh centre format in [0, 1], and which they are, (n,) bool.
    """
    size = np.array([width, height], dtype=np.float64)
    corners = np.clip(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 2, 2) / size, 0, 1)
    side = corners[:, 1] - corners[:, 0]
    kept = np.all(side >= 1e-6, axis=1)  # the precision of label files; also drops NaN
    return np.concatenate([corners.mean(1), side], axis=1)[kept], kept


def _prediction(image: Path, result: Any) -> ImagePrediction:
    height, width = result.orig_shape
    boxes = result.boxes.cpu().numpy()
    boxes_xywhn, kept = normalize_boxes(boxes.xyxy, width, height)
    return ImagePrediction(
        image=image,
        width=width,
        height=height,
        classes=boxes.cls[kept].astype(np.int64),
        scores=boxes.conf[kept].astype(np.float64),
        boxes_xywhn=boxes_xywhn,
    )


def _read(image: Path) -> np.ndarray:
    pixels = imread(image)
    if pixels is None:
        raise UserError(f"cannot read {image}: restore the file, or prepare the data anew with skip_bad=true")
    return pixels


def predict(
    weights: Path,
    images: Sequence[Path],
    *,
    imgsz: int,
    batch: int,
    device: str,
    conf: float = 0.1,
    iou: float = 0.6,
    max_det: int = 300,
) -> Iterator[ImagePrediction]:
    """Detections of a model in many images, one prediction per image in the order given, under a progress bar.

    Images are read as in training (by Ultralytics' own reader) and batch by batch, so memory does not grow with their
    number. All go through the same square letterbox: a batch of mixed shapes would otherwise be padded differently
    depending on its neighbours.

    Args:
        weights: Detection checkpoint whose class ids are those of the data set.
        images: Image files; none are fine.
        imgsz: Side of the letterbox [px].
        batch: Images per forward pass.
        device: Ultralytics device, such as ``"cpu"`` or ``"0"``.
        conf: Lowest score that is returned.
        iou: IoU of the non-maximum suppression.
        max_det: Most detections per image.

    Raises:
        UserError: An image cannot be read.
    """
    if not images:
        return
    model = YOLO(weights, task="detect")
    queue = iter(images)
    with (
        ThreadPoolExecutor(READERS) as readers,
        TQDM(total=len(images), desc="teacher looks at unlabelled images", unit="image") as bar,
    ):
        while chunk := list(itertools.islice(queue, batch)):
            results = model.predict(
                list(readers.map(_read, chunk)),
                imgsz=imgsz,
                rect=False,
                batch=batch,
                device=device,
                conf=conf,
                iou=iou,
                max_det=max_det,
                verbose=False,
                save=False,
            )
            for image, result in zip(chunk, results, strict=True):
                yield _prediction(image, result)
            bar.update(len(chunk))
