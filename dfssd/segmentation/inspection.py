"""The distance maps of the boundary loss for inspection: as arrays, as pictures, and in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure  # used directly: pyplot would choose a backend and keep every figure alive
from PIL import ImageOps

from dfssd.datasets.images.files import UNREADABLE, gray_values, not_decoded, open_image, progress
from dfssd.datasets.masks.files import read_mask
from dfssd.datasets.records import MaskSet
from dfssd.datasets.samples import evenly
from dfssd.errors import UserError
from dfssd.files import atomic_write, write_text
from dfssd.reporting.overlays import class_colors, overlay
from dfssd.segmentation.boundary import distance_maps

MARK = "boundary.txt"
"""Marks a folder that may be written to again."""

COLUMNS = 5
"""Panels beside each other in a picture."""


@dataclass(frozen=True)
class ClassDistances:
    """The distance maps of one defect class over some images.

    Attributes:
        name: Class name.
        images: Number of images that show the class.
        least: Smallest distance in any of the maps [px], 0 or below: the depth of a pixel inside the class.
        greatest: Largest distance in any of the maps [px]. Both are None if all maps are empty.
        empty: Share of the maps that are 0 everywhere, in [0, 1]: there the boundary loss ignores the class.
    """

    name: str
    images: int
    least: float | None
    greatest: float | None
    empty: float


def write_distances(
    dataset: MaskSet, out: Path, *, limit: int | None = None, pictures: int = 8
) -> tuple[int, list[ClassDistances]]:
    """Write the distance maps of a data set as ``out/<part>/<stem>.npy``, float32 (nc - 1, H, W) [px].

    Files of earlier calls are overwritten, each whole or not at all. A folder with anything else in it is refused: it
    might hold the masks themselves.

    Args:
        dataset: The data set; images without a mask are left out.
        out: Folder to write to.
        limit: Number of images, taken evenly from the list, which is often sorted by class; None: all.
        pictures: Number of those that get a picture beside the array, ``<stem>.png``, again taken evenly.

    Returns:
        Number of images, and a summary of each defect class in id order.

    Raises:
        UserError: No image has a mask, a file cannot be read, or the folder cannot be written to, or has other files.
    """
    known = [item for item in dataset.items if item.known]
    items = [known[i] for i in evenly(len(known), limit)]
    if not items:
        raise UserError(f"{dataset.name} has no image with a mask; there is nothing to measure a distance to")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (out / MARK).exists():
            raise UserError(f"{out} holds other files, which could be overwritten; choose an empty or a new folder")
        write_text(out / MARK, "Distance maps of scripts/boundary.py; a later call overwrites them.\n")
    except OSError as e:
        raise UserError(f"{out} cannot be made a folder ({e.strerror}); choose another place") from e
    nc = len(dataset.names)
    shown, empty = np.zeros((2, nc - 1), int)
    least, greatest = np.zeros((2, nc - 1))
    drawn = set(evenly(len(items), pictures))
    for number, item in enumerate(progress(items, "Distance maps", len(items))):
        assert item.mask is not None
        ids = read_mask(item.mask)
        maps = distance_maps(ids, nc)
        target = out / (item.split or "all") / f"{item.image.stem}.npy"
        with atomic_write(target) as temporary:
            np.save(temporary, maps)
        if number in drawn:
            draw_distances(item.image, ids, maps, dataset.names, target.with_suffix(".png"))
        shown += np.isin(np.arange(1, nc), ids)
        empty += ~maps.any((1, 2))
        least = np.minimum(least, maps.min((1, 2)))
        greatest = np.maximum(greatest, maps.max((1, 2)))
    rows = []
    for c, name in enumerate(dataset.names[1:]):
        low, high = (float(least[c]), float(greatest[c])) if empty[c] < len(items) else (None, None)
        rows.append(ClassDistances(name, int(shown[c]), low, high, float(empty[c] / len(items))))
    return len(items), rows


def draw_distances(image: Path, ids: np.ndarray, maps: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw an image, its mask over it, and the distance map of each defect class: red inside, blue outside.

    One scale serves all maps; each side of 0 is stretched separately, since a pixel is at most a few pixels deep in a
    defect, but up to hundreds away from one.

    Args:
        image: The image.
        ids: Its mask, (H, W) uint8.
        maps: Distances [px], (nc - 1, H, W).
        names: Class names in id order, the background first.
        path: PNG to write.

    Raises:
        UserError: The image cannot be read, or the picture not be written.
    """
    try:
        with open_image(image) as file:
            shades = np.asarray(gray_values(ImageOps.exif_transpose(file)))
    except UNREADABLE as e:
        raise UserError(f"{image}: the image {not_decoded(e)}; replace it") from e
    pixels = np.repeat(shades[..., None], 3, 2)
    panels = {"image": pixels, "mask": overlay(shades, ids, class_colors(len(names)))}
    columns = min(COLUMNS, 1 + len(names))
    rows = math.ceil((1 + len(names)) / columns)
    height = 2.6 * min(ids.shape[0] / ids.shape[1], 1.5) + 0.4
    figure = Figure(figsize=(2.6 * columns + 1, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (title, panel) in zip(grid, panels.items()):
        axes.imshow(panel)
        axes.set_title(title, fontsize=9)
    low, high = min(-1.0, float(maps.min())), max(1.0, float(maps.max()))
    norm = TwoSlopeNorm(0, low, high)
    for axes, name, distances in zip(grid[2:], names[1:], maps):
        axes.imshow(distances, cmap="RdBu", norm=norm)
        axes.set_title(name if distances.any() else f"{name}: no border", fontsize=9)
    ticks = [low, low / 2, 0, high / 2, high]
    scale = figure.colorbar(ScalarMappable(norm, "RdBu"), ax=list(grid), fraction=0.03, ticks=ticks, format="%.3g")
    scale.set_label("distance to the border [px], inside below 0", fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
