"""Inference of teachers on many images, as fast as the forward pass.

Three things happen at once: threads decode and letterbox the images of the next batches, the device computes a batch,
and the host thins out the boxes of the batch before (:class:`~dfssd.pseudo_labels.detector.Detector`).
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
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
        file: Where it was read from.
        shape: Height and width [px].
        views: Its views, (S, S, 3) uint8 each.
    """

    file: Path
    shape: tuple[int, int]
    views: dict[View, np.ndarray]


def read_as_in_training(image: Path) -> np.ndarray:
    """The pixels of an image, (h, w, 3) uint8 BGR, by Ultralytics' own reader.

    Raises:
        UserError: It cannot be read.
    """
    pixels: np.ndarray | None = imread(image)
    if pixels is None:
        raise UserError(f"cannot read {image}: restore the file, or prepare the data again with skip_bad=true")
    return pixels


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


class Inference:
    """Detections of several models in several views of many images; the models stay loaded.

    Images are read once each and batch by batch, so memory does not grow with their number. All images get the same
    square: in a batch of mixed shapes the padding would otherwise depend on the other images.
    """

    def __init__(
        self,
        weights: Sequence[Path],
        views: Sequence[View],
        *,
        batch: int,
        device: str,
        conf: float,
        iou: float,
        max_det: int = 300,
        read: Callable[[Path], np.ndarray] = read_as_in_training,
        unreadable: Callable[[Path, UserError], object] | None = None,
    ):
        """Note what is to be done; the models are loaded for the first image.

        Args:
            weights: Detection checkpoints whose class ids are those of the data set.
            views: Views of each image that each model gets.
            batch: Images per forward pass, at least; more on a GPU (:func:`forward_batch`).
            device: Ultralytics device, such as ``"cpu"`` or ``"0"``.
            conf: Lowest score that is returned.
            iou: IoU of the non-maximum suppression within one view.
            max_det: Maximum number of detections per image, model and view.
            read: Image file -> pixels (h, w, 3) uint8 BGR; called by several threads. It raises :class:`UserError`.
            unreadable: Is told of each image that ``read`` refuses, which then has no predictions; None: the error ends
                the inference.
        """
        self.weights, self.views, self.batch, self.device = weights, views, batch, device
        self.conf, self.iou, self.max_det = conf, iou, max_det
        self.read, self.unreadable = read, unreadable

    @cached_property
    def detectors(self) -> list[Detector]:
        """The models."""
        detectors = [Detector(path, self.device) for path in self.weights]
        if self.device == "cpu":
            use_all_cores()  # Ultralytics has left one free when it selected the CPU
        return detectors

    def predict(self, images: Sequence[Path], what: str | None = None) -> Iterator[list[ImagePrediction]]:
        """Detections in many images, in the order given.

        Args:
            images: Image files, may be empty.
            what: Word for the images; a terminal shows how far it is. None: it does not.

        Yields:
            For each image its predictions, one per model and view, all views of the first model first; boxes refer to
            the pixels that ``read`` has returned. Nothing for an image that cannot be read.

        Raises:
            UserError: An image cannot be read, and nobody is told of it.
        """
        found = self._predictions(images)
        return found if what is None else iter(progress(found, f"Looking at {what}", len(images), SHOWN))

    def _predictions(self, images: Sequence[Path]) -> Iterator[list[ImagePrediction]]:
        if not images:
            return
        looks = [
            (own, replace(view, stretched=own.family.stretched))
            for own, view in itertools.product(self.detectors, self.views)
        ]
        wanted = list(dict.fromkeys(view for _, view in looks))
        with (
            ThreadPoolExecutor(READERS) as readers,
            ThreadPoolExecutor(
                READERS
            ) as thinners,  # of their own: their work must not wait behind that of the readers
        ):

            def finish(decoded: list[_Image], started: list[list[Started]]) -> Iterator[Any]:
                files, shapes = [image.file for image in decoded], [image.shape for image in decoded]
                found = []
                for (detector, view), parts in zip(looks, started, strict=True):
                    rows, at = [], 0
                    for part in parts:
                        n = len(part.boxes)
                        rows += detector.finish(
                            part,
                            shapes[at : at + n],
                            conf=self.conf,
                            iou=self.iou,
                            max_det=self.max_det,
                            each=thinners.map,
                        )
                        at += n
                    found.append(
                        [_prediction(*p, mirrored=view.mirrored) for p in zip(files, shapes, rows, strict=True)]
                    )
                return map(list, zip(*found, strict=True))

            before = None
            for decoded in self._decoded(readers, images, wanted):
                started = [_start(detector, [image.views[view] for image in decoded]) for detector, view in looks]
                if before:  # while the device computes this batch
                    yield from finish(*before)
                before = decoded, started
            if before:
                yield from finish(*before)

    def _decoded(
        self, readers: ThreadPoolExecutor, images: Sequence[Path], views: Sequence[View]
    ) -> Iterator[list[_Image]]:
        """The images that can be read in batches, decoded by ``readers`` :data:`AHEAD` batches ahead."""
        size = forward_batch(self.batch, max(view.imgsz for view in self.views), self.device)
        queue = iter(images)
        waiting: deque[list[Future[_Image | None]]] = deque()
        while True:
            while len(waiting) <= AHEAD and (chunk := list(itertools.islice(queue, size))):
                waiting.append([readers.submit(self._image, image, views) for image in chunk])
            if not waiting:
                return
            if decoded := [image for future in waiting.popleft() if (image := future.result()) is not None]:
                yield decoded

    def _image(self, file: Path, views: Sequence[View]) -> _Image | None:
        try:
            pixels = self.read(file)
        except UserError as e:
            if self.unreadable is None:
                raise
            self.unreadable(file, e)
            return None
        sides = {False: pixels, True: np.ascontiguousarray(pixels[:, ::-1])}
        seen = {view: Detector.prepare(sides[view.mirrored], view.imgsz, view.stretched) for view in views}
        return _Image(file, pixels.shape[:2], seen)
