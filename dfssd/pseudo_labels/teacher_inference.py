"""Inference of teachers on many images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO
from ultralytics.utils import TQDM
from ultralytics.utils.patches import imread

from dfssd.errors import UserError
from dfssd.pseudo_labels.records import ImagePrediction

READERS = 4
"""Threads that decode the images of a batch."""

SCALES = (0.83, 1.25)
"""Scales of test-time augmentation besides 1: one smaller, one larger, well inside the range of training."""

STRIDE = 32
"""The side of a letterbox is a multiple of this [px]."""


@dataclass(frozen=True)
class View:
    """One view of an image.

    Attributes:
        imgsz: Side of the letterbox [px].
        mirrored: The image is mirrored left to right; boxes are returned for the original image.
    """

    imgsz: int
    mirrored: bool = False


def augmented_views(imgsz: int) -> tuple[View, ...]:
    """Views of test-time augmentation: the original, mirrored left to right, and at 0.83 and 1.25 times the size.

    Together they cost about 4.2 times the original view. Vertical flips are left out, although many surface defects
    have no preferred orientation: Ultralytics trains without them by default (``flipud=0``), and a view in which the
    teacher is weak lowers the score of every correct box (see :func:`dfssd.pseudo_labels.fusion.fuse`).

    Args:
        imgsz: Size of the original view [px]; the others are rounded to a multiple of 32 and left out if equal.
    """
    sizes = {max(STRIDE, round(imgsz * scale / STRIDE) * STRIDE): None for scale in SCALES}
    return (View(imgsz), View(imgsz, mirrored=True), *(View(size) for size in sizes if size != imgsz))


def normalize_boxes(boxes_xyxy: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip pixel boxes to the image, normalize them and drop those without area.

    Args:
        boxes_xyxy: (n, 4) corners [px].
        width: Image width [px].
        height: Image height [px].

    Returns:
        The remaining boxes, (k, 4) float64 xywh center format in [0, 1], and which ones they are, (n,) bool.
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


def _mirror(prediction: ImagePrediction) -> ImagePrediction:
    """The boxes of a mirrored image in the original one: x -> 1 - x of the centers."""
    boxes = prediction.boxes_xywhn.copy()
    boxes[:, 0] = 1 - boxes[:, 0]
    return replace(prediction, boxes_xywhn=boxes)


def _read(image: Path) -> np.ndarray:
    pixels: np.ndarray | None = imread(image)
    if pixels is None:
        raise UserError(f"cannot read {image}: restore the file, or prepare the data again with skip_bad=true")
    return pixels


def predict_views(
    weights: Sequence[Path],
    images: Sequence[Path],
    views: Sequence[View],
    *,
    batch: int,
    device: str,
    conf: float,
    iou: float,
    max_det: int = 300,
    what: str = "unlabeled images",
) -> Iterator[list[ImagePrediction]]:
    """Detections of several models in several views of many images, in the order given, under one progress bar.

    Images are read once each, as in training (by Ultralytics' own reader), and batch by batch, so memory does not grow
    with their number; all models stay loaded. All images get the same square letterbox: in a batch of mixed shapes the
    padding would otherwise depend on the other images.

    Args:
        weights: Detection checkpoints whose class ids are those of the data set.
        images: Image files, may be empty.
        views: Views of each image that each model gets.
        batch: Images per forward pass.
        device: Ultralytics device, such as ``"cpu"`` or ``"0"``.
        conf: Lowest score that is returned.
        iou: IoU of the non-maximum suppression within one view.
        max_det: Maximum number of detections per image, model and view.
        what: Word for the images in the progress bar.

    Yields:
        For each image its predictions, one per model and view, all views of the first model first; boxes refer to the
        original image.

    Raises:
        UserError: An image cannot be read.
    """
    if not images:
        return
    models = [YOLO(path, task="detect") for path in weights]
    queue = iter(images)
    with (
        ThreadPoolExecutor(READERS) as readers,
        TQDM(total=len(images), desc=f"teacher inference on {what}", unit="image") as bar,
    ):
        while chunk := list(itertools.islice(queue, batch)):
            pixels = list(readers.map(_read, chunk))
            by_view = []
            for model, view in itertools.product(models, views):
                results = model.predict(
                    [np.ascontiguousarray(p[:, ::-1]) for p in pixels] if view.mirrored else pixels,
                    imgsz=view.imgsz,
                    rect=False,
                    batch=batch,
                    device=device,
                    conf=conf,
                    iou=iou,
                    max_det=max_det,
                    verbose=False,
                    save=False,
                )
                found = [_prediction(image, result) for image, result in zip(chunk, results, strict=True)]
                by_view.append([_mirror(p) for p in found] if view.mirrored else found)
            yield from map(list, zip(*by_view, strict=True))
            bar.update(len(chunk))
