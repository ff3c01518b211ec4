"""Inference of teachers on many images, as fast as the forward pass.

Three things happen at once: threads decode and letterbox the images of the next batches, the device computes a batch,
and the host thins out the boxes of the batch before (:class:`~dfssd.pseudo_labels.detector.Detector`).
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils.patches import imread

from dfssd.datasets.images.files import progress
from dfssd.errors import UserError
from dfssd.hardware import use_all_cores
from dfssd.pseudo_labels.detector import Detector, Started
from dfssd.pseudo_labels.records import ImagePrediction

READERS = min(16, os.cpu_count() or 1)
"""Threads that decode images, and as many that thin out boxes; what they call does not hold the interpreter."""

SHOWN = 50
"""Images from which on their number is shown."""

AHEAD = 2
"""Batches that are decoded ahead of the one that the device computes."""

GPU_BATCH = 64
"""Images of 640 px in a forward pass on a GPU, which a smaller batch does not fill; more of smaller ones."""

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
        stretched: The image fills the square, as a detector may want it (:mod:`dfssd.pseudo_labels.families`).
    """

    imgsz: int
    mirrored: bool = False
    stretched: bool = False


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


def forward_batch(batch: int, imgsz: int, device: str) -> int:
    """Images in a forward pass: ``batch``, on a GPU at least as many as fill it, :data:`GPU_BATCH` of 640 px."""
    if device in {"cpu", "mps"}:
        return batch
    return max(batch, min(256, round(GPU_BATCH * (640 / imgsz) ** 2)))


def _prediction(image: Path, shape: tuple[int, int], rows: np.ndarray, *, mirrored: bool) -> ImagePrediction:
    """The rows of :meth:`Detector.finish` as a prediction; those of a mirrored image moved back, x -> 1 - x."""
    height, width = shape
    boxes, kept = normalize_boxes(rows[:, :4], width, height)
    if mirrored:
        boxes[:, 0] = 1 - boxes[:, 0]
    return ImagePrediction(
        image=image,
        width=width,
        height=height,
        classes=rows[kept, 5].astype(np.int64),
        scores=rows[kept, 4].astype(np.float64),
        boxes_xywhn=boxes,
    )


@dataclass(frozen=True)
class _Image:
    """A decoded image.

    Attributes:
        shape: Height and width [px].
        views: Its views, (S, S, 3) uint8 each.
    """

    shape: tuple[int, int]
    views: dict[View, np.ndarray]


def _read(image: Path, views: Sequence[View]) -> _Image:
    pixels: np.ndarray | None = imread(image)
    if pixels is None:
        raise UserError(f"cannot read {image}: restore the file, or prepare the data again with skip_bad=true")
    sides = {False: pixels, True: np.ascontiguousarray(pixels[:, ::-1])}
    seen = {view: Detector.prepare(sides[view.mirrored], view.imgsz, view.stretched) for view in views}
    return _Image(pixels.shape[:2], seen)


def _start(detector: Detector, prepared: Sequence[np.ndarray]) -> list[Started]:
    """Start a batch, in halves where the memory of the GPU does not suffice for it."""
    try:
        return [detector.start(prepared)]
    except torch.cuda.OutOfMemoryError:
        if len(prepared) == 1:
            raise
    torch.cuda.empty_cache()  # outside of the handler: the traceback holds the tensors of the failed attempt
    half = len(prepared) // 2
    return _start(detector, prepared[:half]) + _start(detector, prepared[half:])


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
    """Detections of several models in several views of many images, in the order given; a terminal shows how far it is.

    Images are read once each, as in training (by Ultralytics' own reader), and batch by batch, so memory does not grow
    with their number; all models stay loaded. All images get the same square: in a batch of mixed shapes the padding
    would otherwise depend on the other images.

    Args:
        weights: Detection checkpoints whose class ids are those of the data set.
        images: Image files, may be empty.
        views: Views of each image that each model gets.
        batch: Images per forward pass, at least; more on a GPU (:func:`forward_batch`).
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
    found = _predictions(weights, images, views, batch=batch, device=device, conf=conf, iou=iou, max_det=max_det)
    return iter(progress(found, f"Looking at {what}", len(images), SHOWN))


def _predictions(
    weights: Sequence[Path],
    images: Sequence[Path],
    views: Sequence[View],
    *,
    batch: int,
    device: str,
    conf: float,
    iou: float,
    max_det: int,
) -> Iterator[list[ImagePrediction]]:
    """What :func:`predict_views` yields."""
    if not images:
        return
    detectors = [Detector(path, device) for path in weights]
    if device == "cpu":
        use_all_cores()  # Ultralytics has left one free when it selected the CPU
    size = forward_batch(batch, max(view.imgsz for view in views), device)
    looks = [(own, replace(view, stretched=own.family.stretched)) for own, view in itertools.product(detectors, views)]
    wanted = list(dict.fromkeys(view for _, view in looks))
    with (
        ThreadPoolExecutor(READERS) as readers,
        ThreadPoolExecutor(READERS) as thinners,  # of their own: their work must not wait behind that of the readers
    ):

        def finish(chunk: Sequence[Path], decoded: list[_Image], started: list[list[Started]]) -> Iterator[Any]:
            shapes = [image.shape for image in decoded]
            found = []
            for (detector, view), parts in zip(looks, started, strict=True):
                rows, at = [], 0
                for part in parts:
                    n = len(part.boxes)
                    rows += detector.finish(
                        part, shapes[at : at + n], conf=conf, iou=iou, max_det=max_det, each=thinners.map
                    )
                    at += n
                found.append([_prediction(*p, mirrored=view.mirrored) for p in zip(chunk, shapes, rows, strict=True)])
            return map(list, zip(*found, strict=True))

        before = None
        for chunk, decoded in _decoded(readers, images, size, wanted):
            started = [_start(detector, [image.views[view] for image in decoded]) for detector, view in looks]
            if before:  # while the device computes this batch
                yield from finish(*before)
            before = chunk, decoded, started
        if before:
            yield from finish(*before)


def _decoded(
    readers: ThreadPoolExecutor, images: Sequence[Path], size: int, views: Sequence[View]
) -> Iterator[tuple[list[Path], list[_Image]]]:
    """The images in chunks of ``size``, decoded by ``readers`` :data:`AHEAD` chunks ahead."""
    queue, waiting = iter(images), deque[tuple[list[Path], list[Future[_Image]]]]()
    while True:
        while len(waiting) <= AHEAD and (chunk := list(itertools.islice(queue, size))):
            waiting.append((chunk, [readers.submit(_read, image, views) for image in chunk]))
        if not waiting:
            return
        chunk, futures = waiting.popleft()
        yield chunk, [future.result() for future in futures]
