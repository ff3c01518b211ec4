"""Squares around images and their eight symmetries for a whole batch, as numbers of stored pixels.

A stored image lies in the top left corner of a square of S + 2 pixels, after a frame of one pixel, which like all that
is left of the square holds what belongs around an image (:mod:`dfssd.loading.store`). A view is the square of S pixels
in whose middle the image lies, turned or mirrored: row and column of a view tell independently of each other which row
and column of the store they show. So two short vectors for each image say where all pixels of its view are, and one
read fetches them. Nothing is interpolated.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

POSES = 8
"""Symmetries of a square: pose 4 t + 2 u + v is mirrored left to right if v, upside down if u, then transposed if t."""


def offsets(sizes: np.ndarray, poses: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What the rows and the columns of views add to the number of a pixel within its stored square.

    Args:
        sizes: Height and width of the B images [px], (B, 2) integers, at most ``side``.
        poses: (B,) integers from 0 to 7.
        side: Of the views, S [px].

    Returns:
        For the rows and for the columns, (B, S) int64 each: pixel (r, c) of view b is number
        ``rows[b, r] + columns[b, c]`` of the (S + 2)^2 of its square, counted row by row.
    """
    poses, sizes = np.asarray(poses), np.asarray(sizes)
    stored, along = side + 2, np.arange(side)
    found = []
    for axis, bit, step in ((0, 2, stored), (1, 1, 1)):
        mirrored = (poses & bit).astype(bool)[:, None]
        place = np.where(mirrored, side - 1 - along, along)
        first = (side - sizes[:, axis, None]) // 2
        found.append(np.clip(place - first + 1, 0, stored - 1).astype(np.int64) * step)
    turned = (poses & 4).astype(bool)[:, None]
    down, right = found
    return np.where(turned, right, down), np.where(turned, down, right)


def read_squares(stored: Tensor, places: Tensor) -> Tensor:
    """Pixels of stored squares.

    Args:
        stored: (m, (S + 2)^2), any type.
        places: Numbers among all of them, any shape, int64.

    Returns:
        Their values, in the shape of ``places``.
    """
    return stored.reshape(-1).index_select(0, places.reshape(-1)).view(places.shape)


def pixel_numbers(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, S, S) numbers of the pixels of views within their squares, from :func:`offsets`, (B, S) each."""
    return rows[:, :, None] + columns[:, None, :]
