"""Where every pixel and box of a training view comes from: Ultralytics' random geometry, drawn for a whole batch.

The parameters have the distributions of ``v8_transforms`` in Ultralytics 8.4.190, and boxes follow its rules: mosaic,
affine or perspective transform, mixup, flips, in this order. An image without mosaic goes straight to the affine
transform, which centers it. Everything here is numpy on arrays of a whole batch; pixels are in
:mod:`dfssd.loading.sampling`.

A *canvas* is what the affine transform sees: a mosaic of four images around a center on 2S x 2S pixels of gray, or one
image as large as it is. Both are held alike, as four tiles around a center: a single image is the last tile of a canvas
with its center in the corner. A batch of B views has B canvases and one more for each view that is mixed with another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = range(4)
"""The tiles of a canvas."""

THINNEST = 2.0
"""[px] A transformed box has to be wider and higher."""

LONGEST = 100.0
"""Ratio of the sides from which on a transformed box is dropped."""

VISIBLE = 0.1
"""A transformed box needs more than this share of its area, measured against the scaled box before it was clipped."""

_EPS = 1e-16


@dataclass(frozen=True)
class GeometrySettings:
    """Ultralytics' arguments for the geometry of views.

    Attributes:
        side: Of a view, S [px].
        mosaic: Probability of a mosaic.
        mixup: Probability that a view is mixed with another.
        degrees: Largest angle of rotation [degrees].
        translate: Largest shift, as a share of the side.
        scale: Factors, lowest and highest.
        shear: Largest angle of shear [degrees].
        perspective: Largest entry of the perspective row; 0: the transform is affine.
        flipud: Probability of a flip upside down.
        fliplr: Probability of a flip left to right.
    """

    side: int
    mosaic: float
    mixup: float
    degrees: float
    translate: float
    scale: tuple[float, float]
    shear: float
    perspective: float
    flipud: float
    fliplr: float

    @classmethod
    def of_arguments(cls, args: Any, side: int) -> GeometrySettings:
        """From Ultralytics' arguments; ``scale`` is there a range around 1 or the two factors."""
        given = args.scale
        scale = (given[0], given[1]) if isinstance(given, (tuple, list)) else (1 - given, 1 + given)
        same = {field.name for field in fields(cls)} - {"side", "scale"}
        return cls(side=side, scale=scale, **{name: float(getattr(args, name)) for name in same})


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch, those that Ultralytics draws: V canvases, of which the first B are the views.

    Attributes:
        images: (V, 4) int64, number of the image of each tile; a canvas without mosaic shows the first one.
        mosaic: (V,) bool.
        center: (V, 2) int64, x and y where the tiles of a mosaic meet [px].
        perspective: (V, 2) float64, first two entries of the last row.
        angle: (V,) float64, rotation, counterclockwise as seen [degrees].
        scale: (V,) float64, factor.
        shear: (V, 2) float64, angles along x and y [degrees].
        shift: (V, 2) float64, where the center of the canvas comes to lie, x and y [px].
        view: (V,) int64, the view that the canvas is part of, 0 to B - 1.
        ratio: (V - B,) float64, share of the view's own pixels where it is mixed.
        flips: (B, 2) bool, left to right and upside down.
    """

    images: np.ndarray
    mosaic: np.ndarray
    center: np.ndarray
    perspective: np.ndarray
    angle: np.ndarray
    scale: np.ndarray
    shear: np.ndarray
    shift: np.ndarray
    view: np.ndarray
    ratio: np.ndarray
    flips: np.ndarray


def draw(
    rng: np.random.Generator,
    images: np.ndarray,
    parts: np.ndarray,
    settings: GeometrySettings,
    mosaic: np.ndarray | None = None,
) -> Draws:
    """Draw the geometry of a batch.

    The other images of a mosaic come from all of a part, as in Ultralytics with ``cache=ram``; else it takes them from
    the images that a worker has read last, which differs within a few batches only.

    Args:
        rng: Source of the random numbers.
        images: (B,) numbers of the images, one for each view.
        parts: (B, 2) first number, and number after the last one, of the images that may join each view in a mosaic
            or be mixed into it.
        settings: Ultralytics' arguments.
        mosaic: (B,) probability of a mosaic in each view; None: that of ``settings`` in all.
    """
    s = settings
    chances = np.full(len(images), s.mosaic) if mosaic is None else mosaic
    mixed = np.flatnonzero(rng.random(len(images)) < s.mixup)
    view = np.concatenate([np.arange(len(images)), mixed])
    n = len(view)

    def symmetric(limit: float, *shape: int) -> np.ndarray:
        return rng.uniform(-limit, limit, (n, *shape))

    tiles = rng.integers(parts[view, :1], parts[view, 1:], (n, 4))
    tiles[: len(images), 0] = images
    border = -(-s.side // 2)  # Ultralytics rounds -side / 2 down
    return Draws(
        images=tiles,
        mosaic=rng.random(n) < chances[view],
        center=rng.uniform(border, 2 * s.side - border, (n, 2)).astype(np.int64),
        perspective=symmetric(s.perspective, 2),
        angle=symmetric(s.degrees),
        scale=rng.uniform(*s.scale, n),
        shear=symmetric(s.shear, 2),
        shift=rng.uniform(0.5 - s.translate, 0.5 + s.translate, (n, 2)) * s.side,
        view=view,
        ratio=rng.beta(32.0, 32.0, len(mixed)),
        flips=rng.random((len(images), 2)) < (s.fliplr, s.flipud),
    )


@dataclass(frozen=True)
class Canvases:
    """The geometry of a batch: V canvases, of which the first B are its views and the others are mixed into some.

    Attributes:
        images: (V, 4) int64, number of the image of each tile.
        sizes: (V, 4, 2) int64, height and width of each tile [px]; 0 for a tile that is not there.
        center: (V, 2) int64, x and y where the tiles meet [px].
        extent: (V, 2) int64, width and height of the canvas [px]; beyond, all is gray.
        matrix: (V, 3, 3) float32, from canvas to view, before the flips.
        scale: (V,) float64, factor in that matrix.
        mosaic: (V,) bool.
        view: (V,) int64, the view that the canvas is part of, 0 to B - 1.
        ratio: (V - B,) float64, share of the view's own pixels where it is mixed.
        flips: (B, 2) bool, left to right and upside down.
    """

    images: np.ndarray
    sizes: np.ndarray
    center: np.ndarray
    extent: np.ndarray
    matrix: np.ndarray
    scale: np.ndarray
    mosaic: np.ndarray
    view: np.ndarray
    ratio: np.ndarray
    flips: np.ndarray

    def corners(self) -> np.ndarray:
        """Where on the canvas the first pixel of each tile's image lies, cut off or not: (V, 4, 2), x and y [px]."""
        origin = np.repeat(self.center[:, None], 4, 1)
        h, w = self.sizes[..., 0], self.sizes[..., 1]
        origin[:, [TOP_LEFT, BOTTOM_LEFT], 0] -= w[:, [TOP_LEFT, BOTTOM_LEFT]]
        origin[:, [TOP_LEFT, TOP_RIGHT], 1] -= h[:, [TOP_LEFT, TOP_RIGHT]]
        return origin


def arrange(draws: Draws, sizes: np.ndarray, settings: GeometrySettings) -> Canvases:
    """The canvases of a batch from its random numbers and the sizes of all images, (n, 2) height and width [px]."""
    single = ~draws.mosaic
    images = draws.images.copy()
    images[single, BOTTOM_RIGHT] = images[single, TOP_LEFT]
    tile_sizes = sizes[images]
    tile_sizes[single, :BOTTOM_RIGHT] = 0
    extent = np.where(single[:, None], tile_sizes[:, BOTTOM_RIGHT, ::-1], 2 * settings.side)
    d = draws
    return Canvases(
        images=images,
        sizes=tile_sizes,
        center=np.where(single[:, None], 0, d.center),
        extent=extent,
        matrix=_matrices(extent, d),
        scale=d.scale,
        mosaic=d.mosaic,
        view=d.view,
        ratio=d.ratio,
        flips=d.flips,
    )


def _matrices(extent: np.ndarray, draws: Draws) -> np.ndarray:
    """``T S R P C``: center, perspective, rotation with scale, shear, and shift, in Ultralytics' order: (V, 3, 3)."""
    d = draws
    c, p, r, s, t = (np.tile(np.eye(3, dtype=np.float32), (len(extent), 1, 1)) for _ in range(5))
    c[:, :2, 2] = -extent / 2
    p[:, 2, :2] = d.perspective
    cosine, sine = d.scale * np.cos(np.deg2rad(d.angle)), d.scale * np.sin(np.deg2rad(d.angle))
    r[:, 0, 0], r[:, 0, 1], r[:, 1, 0], r[:, 1, 1] = cosine, sine, -sine, cosine
    s[:, 0, 1], s[:, 1, 0] = np.tan(np.deg2rad(d.shear)).T
    t[:, :2, 2] = d.shift
    matrices: np.ndarray = t @ s @ r @ p @ c
    return matrices


@dataclass(frozen=True)
class LabelTable:
    """The boxes of all images, one after another.

    Attributes:
        first: (n + 1,) int64: the boxes of image i are those from ``first[i]`` to ``first[i + 1]``.
        values: (R, 2) float32, what is stored with each box: the encoded class id, and a number
            (:mod:`dfssd.batches`).
        boxes: (R, 4) float32, x1, y1, x2, y2 in the image as stored [px].
    """

    first: np.ndarray
    values: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of_labels(cls, labels: Sequence[dict[str, Any]], sizes: np.ndarray) -> LabelTable:
        """From Ultralytics' label dictionaries (xywh, center format, 0 to 1) and the sizes (n, 2) of the images [px].

        ``cls`` has one column, or the number beside the class id as a second one; without it that number is 1.
        """
        counts = [len(label["cls"]) for label in labels]
        values = np.ones((sum(counts), 2), np.float32)
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        boxes = np.zeros((sum(counts), 4), np.float32)
        for start, label in zip(first, labels):
            given = label["cls"]  # (k, 1) or (k, 2)
            values[start : start + len(given), : given.shape[1]] = given
            boxes[start : start + len(given)] = label["bboxes"]
        half = boxes[:, 2:] / 2
        corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
        scale = np.repeat(sizes[:, [1, 0, 1, 0]].astype(np.float32), counts, 0)
        return cls(first, values, corners * scale)


@dataclass(frozen=True)
class Rows:
    """The boxes of a batch.

    Attributes:
        values: (R, 2) float32, as in :class:`LabelTable`.
        boxes: (R, 4) float32, xywh, center format, shares of the view, 0 to 1.
        view: (R,) int64, number of the view, in rising order.
    """

    values: np.ndarray
    boxes: np.ndarray
    view: np.ndarray


def move_boxes(canvases: Canvases, labels: LabelTable, settings: GeometrySettings) -> Rows:
    """The boxes of a batch, in Ultralytics' order: by view, the canvas mixed into it last, by tile, as in the labels.

    Dropped are boxes without area on their mosaic and those that the affine transform leaves too thin, too long, or
    with too little of their area.
    """
    side = settings.side
    tile, row = _rows_of_tiles(canvases, labels)
    canvas = tile // 4
    boxes = labels.boxes[row] + np.tile(canvases.corners().reshape(-1, 2)[tile], 2).astype(np.float32)
    on_mosaic = canvases.mosaic[canvas]
    boxes = np.where(on_mosaic[:, None], boxes.clip(0, 2 * side), boxes)
    kept = ~on_mosaic | ((boxes[:, 2:] - boxes[:, :2]).prod(1) > 0)
    boxes, row, canvas = boxes[kept], row[kept], canvas[kept]
    moved = _transform(boxes, canvases.matrix[canvas], projective=bool(settings.perspective)).clip(0, side)
    kept = _survives(boxes * canvases.scale[canvas, None].astype(np.float32), moved)
    moved, row, view = moved[kept], row[kept], canvases.view[canvas[kept]]
    order = np.argsort(view, kind="stable")
    moved, row, view = moved[order], row[order], view[order]
    centers, extents = (moved[:, :2] + moved[:, 2:]) / 2, moved[:, 2:] - moved[:, :2]
    centers = np.where(canvases.flips[view], side - centers, centers)
    return Rows(labels.values[row], np.concatenate([centers, extents], 1) / np.float32(side), view)


def _rows_of_tiles(canvases: Canvases, labels: LabelTable) -> tuple[np.ndarray, np.ndarray]:
    """For every box on a tile: the tile, numbered through all canvases, and its row in the table."""
    images = canvases.images.ravel()
    counts = (labels.first[images + 1] - labels.first[images]) * (canvases.sizes.reshape(-1, 2)[:, 0] > 0)
    tile = np.repeat(np.arange(len(images)), counts)
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    within = np.arange(len(tile)) - before[tile]
    return tile, labels.first[images[tile]] + within


def _transform(boxes: np.ndarray, matrices: np.ndarray, *, projective: bool) -> np.ndarray:
    """Boxes (R, 4) around the corners of boxes (R, 4) that matrices (R, 3, 3) move; x1, y1, x2, y2."""
    corners = np.ones((len(boxes), 4, 3), np.float32)
    corners[..., :2] = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2)
    moved = corners @ matrices.transpose(0, 2, 1)
    points = moved[..., :2] / moved[..., 2:] if projective else moved[..., :2]
    around: np.ndarray = np.concatenate([points.min(1), points.max(1)], 1)
    return around


def _survives(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which boxes Ultralytics keeps: (R,) bool, of boxes (R, 4) as scaled and as they have become."""
    (w1, h1), (w2, h2) = ((boxes[:, 2:] - boxes[:, :2]).T for boxes in (before, after))
    ratio = np.maximum(w2 / (h2 + _EPS), h2 / (w2 + _EPS))
    visible = w2 * h2 / (w1 * h1 + _EPS)
    kept: np.ndarray = (w2 > THINNEST) & (h2 > THINNEST) & (visible > VISIBLE) & (ratio < LONGEST)
    return kept
