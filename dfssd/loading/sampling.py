"""The pixels of a batch of views, read straight from the stored images.

No mosaic is ever composed: for every pixel of a view the transform is inverted, and the four pixels around that place
on the canvas are read where they are stored. Which one that is follows from two small tables for each canvas, one for
its columns and one for its rows, since the image of a tile and its gray surroundings are both a product of columns and
rows. The number of operators is the same for every batch size, except that very large batches are cut.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfssd.loading.geometry import Canvases, GeometrySettings
from dfssd.loading.pixels import to_device
from dfssd.loading.store import CHANNELS

MOST_READ = {"cpu": 1 << 21}
"""Pixels read at once on a kind of device: few on a CPU, whose caches are small."""

MOST_READ_ELSEWHERE = 1 << 24
"""Pixels read at once otherwise; with their numbers and values, 30 bytes each, that is 500 MB."""

SHORT = 1 << 31
"""Stored pixels that numbers of half the length suffice for."""

_SINGULAR = 1e-12
"""Determinant of a matrix that squeezes the canvas to a line."""

_NOWHERE = np.array([[0, 0, -1], [0, 0, -1], [0, 0, 1]])
"""The inverse matrix of a view that is gray all over."""


class CanvasMaps:
    """A batch of V canvases on the device, ready to be read.

    Attributes:
        side: Of a view, S [px].
        projective: Whether a transform may be more than affine.
        separable: Whether no transform rotates or shears.
        inverse: (V, 3, 3) float32, from a pixel of the view, flipped as it is, to the canvas [px].
        tables: (V * 2 * 2 * (2S + 3),) integers: what a column, or a row, of a canvas adds to the number of a stored
            pixel, which is the sum of both. Beside an image that is a pixel of the gray frame around one.
        center: (V, 2) int32, column and row of the tables in which the lower and right tiles begin, less 1.
        starts: (V, 2, 2) int32: where in the tables the rows begin for a pixel that lies left, or right, of
            the center, and the columns for one above, or below it.
    """

    def __init__(self, canvases: Canvases, places: np.ndarray, settings: GeometrySettings, device: torch.device):
        """Copy what describes the canvases to the device.

        Args:
            canvases: Of V canvases.
            places: (V, 4) number of each tile's image among those that :func:`read_views` will get.
            settings: Ultralytics' arguments.
            device: Where the images are.
        """
        n, side = len(places), settings.side
        self.side, self.projective = side, bool(settings.perspective)
        length = 2 * side + 3
        first = 2 * length * np.arange(2 * n).reshape(n, 2, 1)[:, ::-1] + np.array([0, length])
        short = (places.max() + 1) * (side + 2) ** 2 < SHORT
        found = _tiles(canvases, places, side).astype(np.int32 if short else np.int64)
        inverse = _inverse(canvases, side)
        self.separable = not self.projective and not inverse[:, [0, 1], [1, 0]].any()
        arrays = (inverse, found, canvases.center.astype(np.int32), first.astype(np.int32))
        self.inverse, tiles, self.center, self.starts = to_device(arrays, device)
        low, high, factor, offset = tiles.unsqueeze(-1).unbind(1)  # canvas, axis, other side, side
        place = torch.arange(-1, length - 1, device=device, dtype=tiles.dtype)
        on_image = (place >= low) & (place < high)
        self.tables = ((place * factor + offset) * on_image).sum(3, dtype=tiles.dtype).view(-1)


def _inverse(canvases: Canvases, side: int) -> np.ndarray:
    """Matrices (V, 3, 3) float32 from views to canvases, flips included."""
    flips = np.tile(np.eye(3), (len(canvases.view), 1, 1))
    for axis in (0, 1):
        flipped = canvases.flips[canvases.view, axis]
        flips[flipped, axis, axis], flips[flipped, axis, 2] = -1, side - 1
    matrices = canvases.matrix.astype(np.float64)
    regular = np.abs(np.linalg.det(matrices)) > _SINGULAR
    matrices[~regular] = np.eye(3)
    inverse = np.linalg.inv(matrices) @ flips
    inverse[~regular] = _NOWHERE
    return inverse.astype(np.float32)


def _tiles(canvases: Canvases, places: np.ndarray, side: int) -> np.ndarray:
    """How columns and rows of a canvas become those of stored images, which begin after a frame of one pixel.

    Returns:
        (V, 4, 2, 2, 2) int64: the first column (row) of a tile's image that is to be seen, the one after the last,
        and factor and offset from a column (row) to what it adds to the number of a pixel. The axes after the first two
        are columns and rows, the side on the other axis, and the side on this one.
    """
    stored = side + 2
    tiles = (len(places), 2, 2)  # below the center, right of it
    origin, sizes = canvases.corners().reshape(*tiles, 2), canvases.sizes.reshape(*tiles, 2)
    image = places.reshape(tiles) * stored**2
    found = np.zeros((len(places), 4, 2, 2, 2), np.int64)
    for axis, factor in ((0, 1), (1, stored)):
        start, length = origin[..., axis], sizes[..., 1 - axis]
        if axis:  # the sides of this axis come last
            start, length, image = (values.swapaxes(1, 2) for values in (start, length, image))
        center, extent = (values[:, axis, None, None] for values in (canvases.center, canvases.extent))
        first = np.array([0, 1]) * center
        end = np.where([True, False], center, extent)
        found[:, 0, axis] = np.maximum(start, first)
        found[:, 1, axis] = np.minimum(start + length, end)
        found[:, 2, axis] = factor
        found[:, 3, axis] = (1 - start) * factor + (image if axis else 0)
    return found


def read_views(pixels: Tensor, maps: CanvasMaps, channels: int = 3) -> Tensor:
    """The canvases as their transforms show them, interpolated linearly between four pixels as OpenCV does.

    Args:
        pixels: (m, S + 2, S + 2, 4) uint8, stored images with their gray frames.
        maps: Of V canvases.
        channels: C, 3 or 4.

    Returns:
        (V, C, S, S) uint8, RGB, and what is stored with it as a fourth channel.
    """
    flat = pixels.view(torch.int32).view(-1)
    most = MOST_READ.get(pixels.device.type, MOST_READ_ELSEWHERE)
    at_once = max(1, most // (4 * maps.side**2))
    starts = range(0, len(maps.inverse), at_once)
    parts = [_view(flat, maps, slice(start, start + at_once), channels) for start in starts]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _view(flat: Tensor, maps: CanvasMaps, some: slice, channels: int) -> Tensor:
    """Some of the views; the comments give the axes after the first, which are the views."""
    number, x, y = (_separable if maps.separable else _general)(maps, some)
    pixels = flat.index_select(0, number.view(-1)).view(torch.uint8)
    found = pixels.view(*number.shape, CHANNELS)[..., :channels].float()  # before or after in y, in x, row, column
    row = torch.lerp(found[:, :, 0], found[:, :, 1], x[:, None, ..., None])
    mixed = torch.lerp(row[:, 0], row[:, 1], y[..., None])
    return mixed.round_().permute(0, 3, 1, 2).to(torch.uint8, memory_format=torch.contiguous_format)


def _general(maps: CanvasMaps, some: slice) -> tuple[Tensor, Tensor, Tensor]:
    """The four stored pixels around each pixel of some views.

    Returns:
        Their numbers (v, 2, 2, S, S): before or after in y, before or after in x, row, column; and how far between them
        the pixel lies in x and in y, (v, S, S) float32 each.
    """
    along = torch.arange(maps.side, device=maps.inverse.device, dtype=torch.float32)
    m = (maps.inverse[some] if maps.projective else maps.inverse[some, :2])[..., None, None]
    place = m[:, :, 0] * along + (m[:, :, 1] * along[:, None] + m[:, :, 2])
    if maps.projective:
        place = place[:, :2] / place[:, 2:]
    around, share = _around(place, maps.side)  # x or y, before or after, row, column
    starts = maps.starts[some, ..., None, None, None]
    start = torch.where(around > maps.center[some, :, None, None, None], starts[:, :, 1], starts[:, :, 0])
    number = maps.tables.index_select(0, (start[:, 1, :, None] + around[:, 0, None]).view(-1))
    number += maps.tables.index_select(0, (start[:, 0, None] + around[:, 1, :, None]).view(-1))
    return number.view(len(place), 2, 2, maps.side, maps.side), share[:, 0], share[:, 1]


def _separable(maps: CanvasMaps, some: slice) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_general`, where x follows from the column of a view alone, and y from its row.

    That holds without rotation, shear, and perspective, as is the default of Ultralytics. How far between them a pixel
    lies is (v, 1, S) in x and (v, S, 1) in y.
    """
    along = torch.arange(maps.side, device=maps.inverse.device, dtype=torch.float32)
    m = maps.inverse[some]
    place = torch.stack([m[:, i, i, None] * along + m[:, i, 2, None] for i in (0, 1)], 1)  # x or y, column or row
    around, share = _around(place, maps.side)  # x or y, before or after, column or row
    beyond = around > maps.center[some, :, None, None]
    # x or y, side on the other axis, before or after, column or row
    entry = maps.starts[some].flip(1)[..., None, None] + around[:, :, None]
    value = maps.tables.index_select(0, entry.view(-1)).view(entry.shape)
    low, right = beyond[:, 1, :, None, :, None], beyond[:, 0, None, :, None, :]
    columns, rows = value[:, 0, :, None, :, None, :], value[:, 1, :, :, None, :, None]
    number = torch.where(low, columns[:, 1], columns[:, 0])
    number += torch.where(right, rows[:, 1], rows[:, 0])
    return number, share[:, 0, None, :], share[:, 1, :, None]


def _around(place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The columns or rows of the tables before and after places on the canvas (v, 2, ...), and how far between.

    Returns:
        (v, 2, 2, ...) int32, the third axis being before or after; and (v, 2, ...) float32, 0 to 1.
    """
    place = place.clamp_(-1.0, 2.0 * side)
    corner = place.floor()
    step = torch.arange(1, 3, device=place.device, dtype=torch.int32)
    return corner.int()[:, :, None] + step.view(2, *[1] * (place.dim() - 2)), place - corner


def mix(views: Tensor, canvases: Canvases) -> Tensor:
    """Mix the last V - B of the views (V, C, S, S) uint8 into those that they belong to; returns the first B."""
    count = len(canvases.flips)
    own = views[:count]
    if not len(canvases.ratio):
        return own
    where, ratio = to_device([canvases.view[count:], canvases.ratio.astype(np.float32)], views.device)
    ratio = ratio.view(-1, 1, 1, 1)
    mixed = own.index_select(0, where) * ratio + views[count:] * (1 - ratio)
    return own.index_copy(0, where, mixed.to(torch.uint8))
