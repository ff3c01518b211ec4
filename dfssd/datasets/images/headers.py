"""What the header of an image file says, by its content: kind, size, pages, and what Ultralytics' check makes of it."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import BmpImagePlugin, Jpeg2KImagePlugin, PngImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import jpeg_factory

MOST_PIXELS = 178_956_970
"""Ultralytics' check rejects larger images (Pillow takes them for an attack on the memory)."""

_END_MARK = b"\xff\xd9"
"""The last bytes of a complete JPEG."""

_FILLERS = tuple(
    b"".join(bytes([byte] * 64 + [0xFF, 0xD0 + (first + i) % 8]) for i in range(8))
    for first, byte in ((0, 0xAA), (2, 0x5B), (4, 0xFE), (6, 0x77))
)
"""What is put in the place of the missing end of a JPEG: bytes that do not mean the same as none, and restart marks in
several orders, since a decoder leaves out what follows the mark after the one that it expects."""

_ORIENTATION = 0x0112
"""EXIF tag; 5 to 8 swap width and height."""

_OPENERS: dict[str, Callable[[Any], ImageFile]] = {
    ".jpg": jpeg_factory,
    ".png": PngImagePlugin.PngImageFile,
    ".bmp": BmpImagePlugin.BmpImageFile,
    ".tif": TiffImagePlugin.TiffImageFile,
    ".webp": WebPImagePlugin.WebPImageFile,
    ".jp2": Jpeg2KImagePlugin.Jpeg2KImageFile,
    ".pnm": PpmImagePlugin.PpmImageFile,
}
"""Pillow's reader by kind. ``PIL.Image.open`` is not used: Ultralytics replaces it, for the whole process, by one that
tries to install a package when a file is damaged."""

SIGNATURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"II+\0", ".tif"),  # more than 4 GiB
    (b"MM\0+", ".tif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
    (b"\xff\x4f\xff\x51", ".jp2"),  # its bare code stream
    *((b"P%d" % i, ".pnm") for i in range(1, 7)),
)
"""The first bytes of a file, and its kind; WebP is told apart otherwise."""

_FOREIGN = (
    (b"GIF8", "a GIF"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF"),
    (b"\0\0\1\0", "an icon"),
    (b"DDS ", "a DDS texture"),
    (b"v/1\1", "an OpenEXR file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"<svg", "an SVG"),
)
_BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF", b"msf1": "a HEIF", b"avif": "an AVIF"}
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded.

    Attributes:
        suffix: Its kind: ".jpg", ".png", ".bmp", ".tif", ".webp", ".jp2" or ".pnm".
        image: The image as Pillow opened it.
        pages: Number of pages.
        separate: Whether a TIFF stores each channel in a plane of its own.
        inverted: Whether 0 is white (TIFF).
    """

    suffix: str
    image: ImageFile
    pages: int
    separate: bool
    inverted: bool


def read_header(data: bytes) -> Header | str:
    """The header of an image file with the bytes ``data``, or why it is no image that can be read."""
    suffix = _kind(data)
    if suffix is None:
        return _foreign(data)
    if suffix == ".png" and not _chunks_fit(data):
        return "cannot be decoded (the file is truncated); restore it"
    try:
        image = _OPENERS[suffix](BytesIO(data))
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        separate, inverted = tags.get(284) == 2 and tags.get(277) != 1, tags.get(262) == 0
    except Exception as e:  # readers raise nearly everything for damaged files
        return f"cannot be decoded ({_first_line(e)}); restore it, or convert it to .png or .jpg"
    pages = 1 if suffix == ".jpg" else _pages(image)  # a JPEG may hold previews of itself
    return Header(suffix, image, pages, separate, inverted)


def checked_size(header: Header, data: bytes, size: tuple[int, int]) -> tuple[int, int] | None:
    """(width, height) [px] for which Ultralytics' check takes an image, None if it rejects or rewrites the file.

    The steps are those of ``ultralytics.data.utils.check_image`` of 8.4.190, which opens a file with Pillow.

    Args:
        header: The header; its Pillow image can be used only once.
        data: The bytes of the file.
        size: (width, height) [px] as OpenCV reads the image, where the check asks OpenCV itself.
    """
    image = header.image
    if header.suffix == ".pnm":
        return None
    if header.suffix == ".jpg" and not data.endswith(_END_MARK):
        return None
    try:
        image.verify()
    except Exception:  # as in the check, which drops the image then
        return None
    try:
        exif = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else image.getexif()
        turned = exif.get(_ORIENTATION) in {5, 6, 7, 8}
    except Exception:  # as in the check, which takes the image as not turned then
        turned = False
    if turned:
        return image.size[::-1] if image.format in {"JPEG", "MPO", "PNG"} else size
    return image.size


def decoding_error(header: Header, data: bytes) -> str | None:
    """What Pillow finds wrong with the pixels of a file, None if nothing; at low resolution where that is faster."""
    try:
        image = _OPENERS[header.suffix](BytesIO(data))
        image.draft("L", (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
    except Exception as e:  # readers raise nearly everything for damaged files
        return _first_line(e)
    return None


def with_end_mark(header: Header, data: bytes) -> bytes | None:
    """A JPEG with an end mark, which is added if nothing but that is missing; None if more is missing.

    If nothing more is missing, other bytes before the end mark make no difference; otherwise they are taken for data of
    the pixels that are missing. In progressive files, whose data come in several parts, they may be skipped all the
    same. Decoded by Pillow, since OpenCV lets the library that both use print warnings.
    """
    if data.rstrip(b"\0").endswith(_END_MARK):
        return data
    if "progressive" in header.image.info:
        return None
    if data.endswith(b"\0\0"):  # what a broken copy leaves at the end; a single zero may be data
        data = data.rstrip(b"\0")
    data = data.removesuffix(b"\xff")  # half a mark
    try:
        values, *others = (_jpeg_values(data + filler + _END_MARK) for filler in (b"", *_FILLERS))
    except Exception:  # readers raise nearly everything for damaged files
        return None
    return data + _END_MARK if all(np.array_equal(values, other) for other in others) else None


def _jpeg_values(data: bytes) -> np.ndarray:
    image = jpeg_factory(BytesIO(data))
    image.load()
    return np.asarray(image)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def reader(start: bytes) -> Callable[[Any], ImageFile] | None:
    """What opens an image file (a path or stream) that begins with these 16 bytes; None: it is none that is read."""
    kind = _kind(start)
    return None if kind is None else _OPENERS[kind]


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for signature, suffix in SIGNATURES if data.startswith(signature)), None)


def _pages(image: ImageFile) -> int:
    """Number of pages, 2 if there are more than one and they cannot be counted."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # the next page is damaged, or of a kind that Pillow does not read
        return 2
    finally:
        with contextlib.suppress(Exception):
            image.seek(0)


def _chunks_fit(png: bytes) -> bool:
    """Whether no chunk of a PNG claims to go on behind the end of the file: OpenCV would make room for 2 GiB."""
    place = 8
    while place + 8 <= len(png):
        length, name = struct.unpack_from(">I4s", png, place)
        place += 12 + length
        if name == b"IEND":
            break
    return place <= len(png)


def _foreign(data: bytes) -> str:
    """Why bytes that begin like none of the known kinds are not read."""
    if not data:
        return "is empty"
    if data.startswith(_LFS):
        return "is a pointer of Git LFS instead of the image; run git lfs pull"
    if not any(data):
        return "holds only zeros; restore it"
    kind = _BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    kind = kind or next((name for signature, name in _FOREIGN if data.startswith(signature)), None)
    if kind is not None:
        return f"is {kind}, which is not read: convert it to .png or .jpg"
    return "cannot be decoded (it is not an image)"
