"""Types that the modules of this package exchange: boxes of one image, and boxes of a training batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class ImagePrediction:
    """Detections of the teacher in one image, after non-maximum suppression.

    Attributes:
        image: Path of the image.
        width: Its width [px].
        height: Its height [px].
        classes: Class ids, (n,) int64.
        scores: Confidences, (n,) in [0, 1].
        boxes_xywhn: Boxes, (n, 4), xywh center format, normalized to 0-1.
    """

    image: Path
    width: int
    height: int
    classes: np.ndarray
    scores: np.ndarray
    boxes_xywhn: np.ndarray

    def __post_init__(self) -> None:
        _check_boxes(self)


@dataclass(frozen=True)
class PseudoImage:
    """One pseudo-labeled image as read back.

    Attributes:
        image: Path of the image.
        width: Its width [px].
        height: Its height [px].
        label: Label file, or None if no box was accepted.
        classes: Class ids, (n,) int64.
        scores: Confidences, (n,) float32.
        boxes_xywhn: Boxes, (n, 4) float32, xywh center format, normalized to 0-1.
        zones: "accept", "ignore" or "background", (n,) strings.
    """

    image: Path
    width: int
    height: int
    label: Path | None
    classes: np.ndarray
    scores: np.ndarray
    boxes_xywhn: np.ndarray
    zones: np.ndarray

    def __post_init__(self) -> None:
        _check_boxes(self)


def _check_boxes(image: ImagePrediction | PseudoImage) -> None:
    n = len(image.classes)
    shapes = (image.classes.shape, image.scores.shape, image.boxes_xywhn.shape)
    if shapes != ((n,), (n,), (n, 4)):
        raise ValueError(f"{image.image}: classes (n,), scores (n,) and boxes (n, 4) must match, but they are {shapes}")
    if n and not ((image.boxes_xywhn >= 0) & (image.boxes_xywhn <= 1)).all():
        raise ValueError(f"{image.image}: boxes must be normalized to 0-1")


@dataclass(frozen=True)
class BatchLabels:
    """Boxes of some images of a batch, on the host; all boxes xywh center format, normalized 0-1, float32.

    Attributes:
        batch_idx: (M,) image of each accepted box.
        cls: (M, 1) its class.
        bboxes: (M, 4).
        score: (M,) its score in [0, 1].
        ignore_batch_idx: (K,) image of each box that is neither learned nor background.
        ignore_bboxes: (K, 4); an image without any accepted box is ignored entirely.
        ignore_source: (K,) the photo that the box is a tile of, or -1 for a box that is not a tile.
    """

    batch_idx: np.ndarray
    cls: np.ndarray
    bboxes: np.ndarray
    score: np.ndarray
    ignore_batch_idx: np.ndarray
    ignore_bboxes: np.ndarray
    ignore_source: np.ndarray

    @classmethod
    def of_batch(cls, batch: Mapping[str, Any]) -> BatchLabels:
        """All boxes of a batch, ordered by image; tensors on a device are read, which waits for it."""
        columns = {field.name: on_host(batch[field.name]).astype(np.float32) for field in fields(cls)}
        for place in ("batch_idx", "ignore_batch_idx"):
            if (np.diff(columns[place]) < 0).any():
                order = np.argsort(columns[place], kind="stable")
                own = [name for name in columns if name.startswith("ignore") == place.startswith("ignore")]
                columns.update({name: columns[name][order] for name in own})
        return cls(**columns)

    def part(self, first: int, end: int) -> BatchLabels:
        """The boxes of the images from ``first`` up to, but without, ``end``."""
        accepted = slice(*np.searchsorted(self.batch_idx, (first, end)))
        ignored = slice(*np.searchsorted(self.ignore_batch_idx, (first, end)))
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return BatchLabels(**{k: v[ignored if k.startswith("ignore") else accepted] for k, v in columns.items()})

    def __add__(self, others: BatchLabels) -> BatchLabels:
        """These boxes, then ``others``."""
        names = [field.name for field in fields(self)]
        return BatchLabels(*(np.concatenate([getattr(self, name), getattr(others, name)]) for name in names))

    def table(self) -> np.ndarray:
        """The accepted boxes as (M, 7) float64: x, y, w, h, score, class, image."""
        columns = (self.bboxes, self.score[:, None], self.cls.reshape(-1, 1), self.batch_idx[:, None])
        return np.concatenate(columns, 1).astype(np.float64)


def on_host(values: np.ndarray | Tensor) -> np.ndarray:
    """The values as an array in memory of the host."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
