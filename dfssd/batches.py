"""The training batch, and how boxes that are not labels get through Ultralytics' augmentation into it.

Ultralytics transforms rows of a class id and a box along with the image (mosaic, scale, shift, flip); any other
annotation is lost or no longer matches the pixels. So everything that has a position in the image is encoded as such a
row (:func:`encode`, in the data set) and decoded once the batch is complete (:func:`decode`, in the trainer). Class ids
below ``nc`` are those of the data set; ids from ``nc`` on mark the other kinds of rows:

====================  =====================================  ==================================================
id                    box                                    number stored with it
====================  =====================================  ==================================================
``0 .. nc - 1``       to learn                               its score, 1 for a true box
``nc + IGNORED``      neither to learn nor background        number of the photo that it is a tile of, or -1
``nc + TRUTH + c``    true box of class ``c``, where known   1
====================  =====================================  ==================================================

A photo without any accepted box is ignored entirely, by tiles instead of one box: the geometric augmentation drops a
box of which less than a tenth stays visible, and the rest of the photo would then become background. Decoding widens
the tiles by a bit more than that tenth. Each tile stores the number of its photo, so that a box found later removes
the tiles of its own photo and leaves the other photos of a mosaic ignored.

This module imports no other one of the package: those that build a batch and those that read it share these values
without importing each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import numpy as np
import torch.nn.functional as F
from torch import Tensor

IGNORED, TRUTH = 0, 1
"""Kinds of rows past the last class: their id is ``nc`` plus one of these (for a true box, plus its class)."""

NO_TILE = -1.0
"""The number stored with an ignored box that is not a tile."""

TILES = 8
"""Number of tiles, in each direction, by which a photo without accepted box is ignored."""

TILE_WIDER = 1.5
"""Factor on the sides of tiles when they come out of a batch."""


class _OfUltralytics(TypedDict, total=False):
    """Fields that Ultralytics adds for its own plots and validation; this package does not read them."""

    im_file: tuple[str, ...]  # N paths
    ori_shape: tuple[tuple[int, int], ...]  # N times (height, width) of the file [px]
    resized_shape: tuple[tuple[int, int], ...]  # N times (height, width) as loaded [px]
    ratio_pad: tuple[Any, ...]  # N times how the letterbox scaled and padded


class _LoadedViews(TypedDict, total=False):
    """What a batch holds only where unlabeled images have two views; U of the N images are unlabeled."""

    weak_img: Annotated[Tensor, "uint8", "U 3 H W", "RGB, 0 to 255; the teacher's views, in the order of the images"]


class LoadedBatch(_OfUltralytics, _LoadedViews):
    """A batch as the loader builds it, its views perhaps on the device: N images, R rows as :func:`encode` writes them.

    Annotations: dtype, shape, content. Ultralytics' preprocessing divides ``img`` by 255 (float32) and may resize it
    (``multi_scale``); it changes nothing else.
    """

    img: Annotated[Tensor, "uint8", "N 3 H W", "RGB, 0 to 255; the student's view"]
    cls: Annotated[Tensor, "float32", "R 1", "encoded class id"]
    bboxes: Annotated[Tensor, "float32", "R 4", "xywh, center format, shares of the image, 0 to 1"]
    score: Annotated[Tensor, "float32", "R", "number stored with the encoded class id"]
    batch_idx: Annotated[Tensor, "float32", "R", "number of the image in the batch, in rising order"]
    labeled: Annotated[Tensor, "bool", "N", "whether the image comes from the labeled part"]


class _Views(TypedDict, total=False):
    """What a batch holds only where unlabeled images have two views; U of the N images are unlabeled."""

    weak_img: Annotated[Tensor, "float32", "U 3 H W", "RGB, 0 to 1; the teacher's views, in the order of the images"]


class HostBatch(_OfUltralytics, _Views):
    """A batch as the model gets it: N images on the device, M boxes to learn and K ignored boxes on the host.

    Annotations: dtype, shape, content. Labeled images come first. The boxes to learn of an unlabeled image are those
    known before the training. Boxes are arrays, not tensors: what is done with them takes no operator and no waiting,
    and all of them go to the device at once, as the fields of :class:`Batch`.
    """

    img: Annotated[Tensor, "float32", "N 3 H W", "RGB, 0 to 1; the student's view"]
    cls: Annotated[np.ndarray, "float32", "M 1", "class id, 0 to nc - 1"]
    bboxes: Annotated[np.ndarray, "float32", "M 4", "xywh, center format, shares of the image, 0 to 1"]
    score: Annotated[np.ndarray, "float32", "M", "0 to 1; 1 for a true box"]
    batch_idx: Annotated[np.ndarray, "float32", "M", "number of the image in the batch, in rising order"]
    labeled: Annotated[np.ndarray, "bool", "N", "whether the image comes from the labeled part; these come first"]
    ignore_bboxes: Annotated[np.ndarray, "float32", "K 4", "xywh, center format, relative to the image; tiles widened"]
    ignore_batch_idx: Annotated[np.ndarray, "float32", "K", "number of the image in the batch, in rising order"]
    ignore_source: Annotated[np.ndarray, "float32", "K", "number of the photo that the box is a tile of, or -1"]


class _Ignored(TypedDict, total=False):
    """What a batch holds only where boxes are ignored and the compared layers have the head's levels; A places."""

    ignored: Annotated[Tensor, "bool", "N A", "whether the anchor lies inside an ignored box"]


class Batch(_OfUltralytics, _Views, _Ignored):
    """A batch as the terms get it: all on the device, with the boxes that the teacher has found in this step.

    Annotations as in :class:`HostBatch`.
    """

    img: Annotated[Tensor, "float32", "N 3 H W", "RGB, 0 to 1; the student's view"]
    cls: Annotated[Tensor, "float32", "M 1", "class id, 0 to nc - 1"]
    bboxes: Annotated[Tensor, "float32", "M 4", "xywh, center format, shares of the image, 0 to 1"]
    score: Annotated[Tensor, "float32", "M", "0 to 1; 1 for a true box"]
    batch_idx: Annotated[Tensor, "float32", "M", "number of the image in the batch, in rising order"]
    labeled: Annotated[Tensor, "bool", "N", "whether the image comes from the labeled part"]
    ignore_bboxes: Annotated[Tensor, "float32", "K 4", "xywh, center format, relative to the image; tiles widened"]
    ignore_batch_idx: Annotated[Tensor, "float32", "K", "number of the image in the batch, in rising order"]
    ignore_source: Annotated[Tensor, "float32", "K", "number of the photo that the box is a tile of, or -1"]


@dataclass(frozen=True)
class PhotoBoxes:
    """Boxes of an unlabeled photo known before the training; xywh, center format, relative to the photo, 0 to 1.

    Attributes:
        accepted: (n, 6) class id, score, box: to learn. Without any, the whole photo is ignored.
        ignored: (k, 4) boxes: neither to learn nor background.
        truth: (m, 5) class id, box: true boxes, known in benchmarks only and read by the health meter only.
    """

    accepted: np.ndarray
    ignored: np.ndarray
    truth: np.ndarray


def encode(boxes: PhotoBoxes, *, photo: int, nc: int) -> np.ndarray:
    """The boxes of one photo as rows that Ultralytics' augmentation transforms; :func:`decode` is the inverse.

    Args:
        boxes: Known boxes of the photo.
        photo: Its number; exact in float32 up to 2**24.
        nc: Number of classes.

    Returns:
        (R, 6) float32: encoded class id, number stored with it, box; see the table above.
    """
    if len(boxes.accepted):
        ignored, beside = boxes.ignored, NO_TILE
    else:
        ignored, beside = whole_image_tiles(), float(photo)
    parts = (
        boxes.accepted,
        np.concatenate([np.tile([nc + IGNORED, beside], (len(ignored), 1)), ignored], axis=1),
        np.concatenate([boxes.truth[:, :1] + nc + TRUTH, np.ones((len(boxes.truth), 1)), boxes.truth[:, 1:]], axis=1),
    )
    return np.concatenate(parts).astype(np.float32)


def decode(loaded: LoadedBatch, *, nc: int) -> tuple[HostBatch, np.ndarray]:
    """Decode the rows that :func:`encode` has written, and scale the teacher's views like the student's.

    Args:
        loaded: Batch after Ultralytics' preprocessing of its images; its rows of boxes on the host.
        nc: Number of classes.

    Returns:
        The batch as the model gets it, and the true boxes of its unlabeled images, (T, 7): x, y, w, h, 1, class, image.
    """
    own = {name: _array(loaded, name) for name in ("cls", "bboxes", "score", "batch_idx", "labeled")}
    kind = own["cls"].reshape(-1) - nc
    learned, ignored, true = kind < 0, (kind >= IGNORED) & (kind < TRUTH), kind >= TRUTH
    source = own["score"][ignored]
    batch: HostBatch = {
        **loaded,
        "cls": own["cls"][learned],
        "bboxes": own["bboxes"][learned],
        "score": own["score"][learned],
        "batch_idx": own["batch_idx"][learned],
        "labeled": own["labeled"],
        "ignore_bboxes": widen_tiles(own["bboxes"][ignored], source),
        "ignore_batch_idx": own["batch_idx"][ignored],
        "ignore_source": source,
    }
    if "weak_img" in loaded:
        batch["weak_img"] = _as_seen(loaded["weak_img"], loaded["img"])
    columns = own["bboxes"], own["score"][:, None], kind[:, None] - TRUTH, own["batch_idx"][:, None]
    return batch, np.concatenate(columns, 1)[true]


def _array(loaded: LoadedBatch, name: str) -> np.ndarray:
    values: np.ndarray = loaded[name].cpu().numpy()  # type: ignore[literal-required]
    return values


def whole_image_tiles(n: int = TILES) -> np.ndarray:
    """``n * n`` boxes that tile the unit square: (n * n, 4) float32, xywh, center format, 0 to 1."""
    centers = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = np.meshgrid(centers, centers)
    side = np.full(n * n, 1 / n, dtype=np.float32)
    return np.stack([x.ravel(), y.ravel(), side, side], axis=1)


def widen_tiles(boxes: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Ignored boxes (K, 4), xywh, center format, with the tiles among them (``source`` (K,) >= 0) widened.

    A widened tile covers the visible tenth of a neighbor that the augmentation may have dropped.
    """
    factor = np.where(source >= 0, TILE_WIDER, 1.0)[:, None].astype(boxes.dtype)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] * factor], axis=1)


def _as_seen(weak: Tensor, strong: Tensor) -> Tensor:
    """Weak views (U, 3, H, W), 0 to 255, preprocessed like the strong ones: float32, 0 to 1, same size."""
    weak = weak.float() / 255
    if weak.shape[2:] != strong.shape[2:]:  # multi_scale has resized the student's views
        weak = F.interpolate(weak, size=strong.shape[2:], mode="bilinear", align_corners=False)
    return weak
