"""One mask file: the ids it holds, and how it lies on its image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from dfssd.datasets.images.files import not_decoded, open_image
from dfssd.datasets.images.pixels import ImageFacts, read_pixels
from dfssd.errors import UserError

_ORIENTATION = 0x0112
"""EXIF tag: how the stored pixels are to be turned, 1 (not at all) to 8."""

_ALIKE = 0.8
"""Share of the pixels of a mask that have the value of their neighbor, at least; fine cracks are far above."""

_FEW = 64
"""Number of values of a mask that only its pixels tell from a photograph, at most."""

_SWAPPING = (5, 6, 7, 8)
"""Orientations that swap width and height."""


def read_mask(path: Path) -> np.ndarray:
    """The stored ids (h, w) of a mask, not scaled; integer or bool.

    The ids of a palette image are its indices, or its gray levels if the palette is gray, as in Ultralytics.

    Raises:
        UserError: The file cannot be read, has lossy compression, several channels or pages, fractions instead of ids,
            or an EXIF orientation.
    """
    try:
        with open_image(path) as image:
            return _ids(image, path)
    except UserError:
        raise
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file; restore the mask") from e
    except Exception as e:  # for damaged files Pillow raises nearly everything, struct.error and TypeError among it
        raise UserError(f"{path}: the mask {not_decoded(e)}; replace it") from e


def _ids(image: ImageFile, path: Path) -> np.ndarray:
    if isinstance(image, JpegImageFile):
        raise UserError(f"{path}: is a JPEG, whose lossy compression changes ids; save masks as PNG")
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise UserError(f"{path}: has {pages} pages; save the one with the class ids as PNG")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        raise UserError(f"{path}: the mask has an EXIF orientation, which not all readers apply; save it without")
    if image.mode == "P":
        palette = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
        return np.asarray(image.convert("L") if (palette == palette[:, :1]).all() else image)
    if image.mode == "F":
        raise UserError(f"{path}: holds fractions (mode F); save class ids as integers in one channel")
    if image.mode not in {"1", "L", "I", "I;16"}:
        raise UserError(
            f"{path}: has {len(image.getbands())} channels (mode {image.mode}); save class ids as integers in one "
            "channel"
        )
    return np.asarray(image)


def is_gray_png(path: Path) -> bool:
    """Whether a readable mask is a PNG with one 8-bit channel, which needs no conversion."""
    with open_image(path) as image:
        return image.mode == "L" and isinstance(image, PngImageFile)


def write_ids(ids: np.ndarray, path: Path) -> None:
    """Write a mask (h, w) uint8 as PNG."""
    Image.fromarray(ids).save(path)


def looks_drawn(path: Path) -> bool | None:
    """Whether the pixels of an image are those of a mask, drawn and not photographed; None: it cannot be read.

    A mask has few values, and nearly all of its pixels have the value of their neighbor. A JPEG is taken for a
    photograph: what it stores are no ids.
    """
    try:
        with open_image(path) as image:
            if isinstance(image, JpegImageFile):
                return False
            pixels = np.asarray(image)
    except Exception:  # as above
        return None
    if pixels.ndim == 3:
        pixels = pixels.astype(np.uint64) @ (256 ** np.arange(pixels.shape[2], dtype=np.uint64))
    if pixels.ndim != 2 or min(pixels.shape) < 2:
        return None
    alike = min((pixels[1:] == pixels[:-1]).mean(), (pixels[:, 1:] == pixels[:, :-1]).mean())
    return bool(alike >= _ALIKE and len(np.unique(pixels)) <= _FEW)


def fitted(ids: np.ndarray, mask: Path, image: Path, facts: ImageFacts) -> tuple[np.ndarray, str]:
    """A mask on its image as training reads it.

    If training turns the image as its EXIF orientation says, the mask may have been drawn on the turned pixels or on
    the stored ones: its size tells, except for a square or mirrored image.

    Args:
        ids: The stored ids (h, w).
        mask: The file of the mask, for messages.
        image: The file of the image.
        facts: What is known of the image.

    Returns:
        The ids (h, w), and for a turned image whether the mask was drawn on the "turned" or on the "stored" pixels, or
        may have been on "either"; else an empty text.

    Raises:
        UserError: The sizes differ.
    """
    own = (ids.shape[1], ids.shape[0])
    orientation = _orientation(image)
    if orientation == 1 and own == facts.size:
        return ids, ""
    stored = facts.size[::-1] if orientation in _SWAPPING else facts.size
    if own == facts.size:
        return ids, "either" if own == stored else "turned"
    if own == stored:
        return turned(ids, orientation), "stored"
    also = f" ({stored[0]}x{stored[1]} px before its EXIF orientation is applied)" if orientation != 1 else ""
    raise UserError(
        f"{mask}: {own[0]}x{own[1]} px, but {image.name} has {facts.width}x{facts.height} px{also}; make them agree"
    )


def _orientation(image: Path) -> int:
    """The orientation that training applies to an image, 1 (none) to 8."""
    try:
        with open_image(image) as opened:
            stated = opened.getexif().get(_ORIENTATION, 1)
        if stated not in range(2, 9):
            return 1
        # Pillow finds orientations that OpenCV does not apply, as those of XMP: only the pixels tell.
        data = np.fromfile(image, dtype=np.uint8)
        stored = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        shown = read_pixels(image)[..., 0]
    except Exception:  # a damaged block of EXIF, or a kind of file that Pillow does not open: OpenCV does not turn it
        return 1
    return int(stated) if stored is not None and np.array_equal(turned(stored[..., 0], stated), shown) else 1


def turned(ids: np.ndarray, orientation: int) -> np.ndarray:
    """A mask (h, w) of the stored pixels as a viewer shows them, given the EXIF orientation of the image."""
    if orientation in _SWAPPING:
        ids = ids.T
    flip_rows = orientation in {3, 4, 7, 8}
    flip_columns = orientation in {2, 3, 6, 7}
    return np.ascontiguousarray(ids[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
