"""The grain of an image, by which copies are known: the texture of the metal without shading, contrast and size.

Images are reduced to 128x128 whatever their aspect, the local mean is subtracted and the local contrast divided out.
What is left differs between two photographs of one line even where a strip edge or a punched hole, which many images
share, makes them look alike: the plain correlation reaches 0.93 between different strips.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dfssd.datasets.images.files import UNREADABLE, gray_values, open_image
from dfssd.errors import UserError

SIDE = 128
"""[px] side of the compared images."""

TILE_CORRELATION = 0.2
"""Correlation from which two tiles agree."""

_TILE = 16
"""[px]"""

_BLOCK = np.ones((3, 3), dtype=np.uint8)
"""Tiles that have to agree together; at the border of the image those beyond it do not count."""


def gray_image(path: Path, data: bytes | None = None) -> Image.Image:
    """An image file as 8-bit gray values, perhaps at a lower resolution, but never below :data:`SIDE`.

    Args:
        path: The file.
        data: Its bytes, if they have been read.

    Raises:
        UserError: It cannot be read.
    """
    try:
        data = path.read_bytes() if data is None else data
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); restore it, or take it out of the data") from e
    try:
        with open_image(io.BytesIO(data)) as image:
            image.draft("L", (2 * SIDE, 2 * SIDE))
            return gray_values(image)
    except UNREADABLE:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
        if pixels is None:
            raise UserError(f"{path}: cannot be decoded; restore it, or take it out of the data") from None
        return Image.fromarray(pixels)


def reduced(gray: Image.Image) -> np.ndarray:
    """Gray values as (SIDE, SIDE) uint8, whatever the aspect."""
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX))


def grain(image: np.ndarray) -> np.ndarray:
    """Texture of a (SIDE, SIDE) uint8 image without shading and contrast: float32, mean 0, norm 1 (0 if flat)."""
    detail = image.astype(np.float32)
    detail -= cv2.GaussianBlur(detail, (0, 0), 2)
    # One gray level is added to the local contrast, so that the rounding noise of a flat region has no effect.
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4)) + 1
    detail -= detail.mean()
    texture: np.ndarray = detail / (np.linalg.norm(detail) + 1e-6)
    return texture


def grain_of(path: Path) -> np.ndarray:
    """The grain of an image file."""
    return grain(reduced(gray_image(path)))


def poses(image: np.ndarray) -> np.ndarray:
    """An image (s, s) under the symmetries of the square: (8, s, s), four quarter turns, then those of the mirrored."""
    return np.stack([np.rot90(side, quarter) for side in (image, image.T) for quarter in range(4)])


def spectrum(texture: np.ndarray) -> np.ndarray:
    """Spectrum of a grain: (SIDE, SIDE // 2 + 1) complex64."""
    from scipy.fft import rfft2  # late, as in fingerprints

    transformed: np.ndarray = rfft2(texture)
    return transformed


def best_shift(a: np.ndarray, b: np.ndarray) -> tuple[float, bool]:
    """Highest cross-correlation of two grains over all cyclic shifts, at most 1, and whether it is the one without.

    Args:
        a: Spectrum of one grain.
        b: Spectrum of the other.
    """
    from scipy.fft import irfft2

    correlation = irfft2(a * b.conj(), s=(SIDE, SIDE))
    best = int(correlation.argmax())
    return float(correlation.flat[best]), best == 0


def shared_area(a: np.ndarray, b: np.ndarray) -> float:
    """Fraction of the tiles of two grains (SIDE, SIDE) that agree together with those around them.

    The means of the rows and columns of each tile are subtracted, which removes a straight edge that photographs of
    one line have in the same place.
    """
    a, b = _tiles(a), _tiles(b)
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    agree = (a * b).sum(-1) >= np.maximum(TILE_CORRELATION * norm, 1e-9)
    opened = cv2.morphologyEx(agree.astype(np.uint8), cv2.MORPH_OPEN, _BLOCK, borderType=cv2.BORDER_CONSTANT)
    return float(opened.mean())


def agree_in_place(a: np.ndarray, b: np.ndarray, correlation: float, area: float) -> bool:
    """Whether two grains correlate without any shift, and in a large enough fraction of their tiles."""
    return float((a * b).sum()) >= correlation and shared_area(a, b) >= area


def _tiles(image: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) as (rows, columns, pixels of a tile), the means of rows and columns of each tile subtracted."""
    n = SIDE // _TILE
    tiles = image.reshape(n, _TILE, n, _TILE).swapaxes(1, 2)
    tiles = tiles - tiles.mean(2, keepdims=True)
    tiles = tiles - tiles.mean(3, keepdims=True)
    return np.reshape(tiles, (n, n, -1))
