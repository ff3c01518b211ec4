"""The pixels of image files as training reads them, and the facts about a file that decide how it can be used.

Training reads images with ``ultralytics.utils.patches.imread``, which decodes with OpenCV: turned as EXIF says (where
OpenCV reads EXIF: not in JPEG 2000, and never from XMP), the first page, three channels, the upper 8 of 16 bits.
:func:`read_pixels` gives the same pixels without Ultralytics and torch, except that values of more than 8 bits are
scaled by what the camera uses of them. A file is *plain* if Ultralytics itself reads these pixels from it and its check
neither drops the image nor writes it anew; others are to be rewritten (:func:`write_plain`) before training sees them.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.images.gray_levels import is_drawn
from dfssd.datasets.images.headers import (
    MOST_PIXELS,
    Header,
    checked_size,
    decoding_error,
    read_header,
    with_end_mark,
)
from dfssd.errors import UserError
from dfssd.files import write_bytes
from dfssd.trust.limits import pixels_problem
from dfssd.wording import counted, short_paths

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".j2k", ".j2c"),
        *(".pnm", ".pgm", ".ppm", ".pbm"),
    }
)
"""Suffixes of image files that are read, in lower case; the kind of a file is told by its content."""

UNREAD_SUFFIXES = frozenset(
    {
        *(".avif", ".heic", ".heif", ".gif", ".jxl", ".jxr", ".wdp", ".ico", ".tga", ".pcx", ".psd", ".psb", ".xcf"),
        *(".svg", ".eps", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
        *(".exr", ".hdr", ".pfm", ".dcm", ".dicom", ".fits", ".fit", ".czi", ".lif", ".jls"),
    }
)
"""Suffixes of image files that are not read, in lower case. AVIF and GIF are among them since only some versions of
OpenCV and Pillow decode them, and not to the same pixels; ``.dng`` and the like hold no finished picture."""

NOT_READ = "not read: convert it to .png or .jpg"
"""Why a file with one of these suffixes is left out."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of the cameras that write files with more than 8 bits."""

SMALLEST = 10
"""[px] Ultralytics silently drops images with a side below this."""

NEARLY_BLACK = 24
"""An image without a gray value from here on (of 0-255) is called nearly black."""

_TIFF = frozenset({".tif", ".tiff"})
_NOT_TIFF = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jp2"})
"""Suffixes under which Ultralytics lists a file and reads it by its content; it has another way for :data:`_TIFF`."""

_LARGEST_FILE = 2 << 30
"""[bytes]"""

_LARGE = 32_000_000
"""[px] Larger images are decoded one at a time: a pool of threads would need many GiB otherwise."""

_one_large = threading.Lock()


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file; depends on its bytes alone.

    Attributes:
        width: [px] as training reads it, turned by EXIF.
        height: [px]
        suffix: Its kind by content: ".jpg", ".png", ".bmp", ".tif", ".webp", ".jp2" or ".pnm".
        bits: 8, or 16 for files with more than 8 bits per channel.
        low: Lowest value of all channels, alpha left out, in stored units (0-255 or 0-65535).
        high: Highest value.
        constant: Whether no channel has more than one value.
        drawn: Whether it looks like a mask (:func:`~dfssd.datasets.images.gray_levels.is_drawn`).
        pages: Number of pages; only the first is used.
        plain: Whether Ultralytics reads exactly :func:`read_pixels` from the file as it is, under a name that ends with
            :func:`suffix_for_training`, and neither rejects nor rewrites it.
        sha256: Hex digest of the bytes.
    """

    width: int
    height: int
    suffix: str
    bits: int
    low: int
    high: int
    constant: bool
    drawn: bool
    pages: int
    plain: bool
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) [px]."""
        return self.width, self.height


def probe(path: Path) -> ImageFacts | str:
    """Read and decode an image file completely.

    Returns:
        The facts, or the reason why it cannot be used, a sentence part such as "no such file".
    """
    try:
        data = _read(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as e:
        return f"cannot be read ({e.strerror or e})"
    return probe_bytes(data)


def probe_bytes(data: bytes) -> ImageFacts | str:
    """As :func:`probe`, for the bytes of a file."""
    decoded = _decode(data)
    if isinstance(decoded, str):
        return decoded
    header, values = decoded
    height, width = values.shape[:2]
    if min(width, height) < SMALLEST:
        return f"{width}x{height} px is too small, each side needs at least {SMALLEST} px"
    with _quiet:
        checked = checked_size(header, data, (width, height))
    bits = 8 * values.dtype.itemsize
    extremes = [cv2.minMaxLoc(channel)[:2] for channel in cv2.split(values)]
    return ImageFacts(
        width=width,
        height=height,
        suffix=header.suffix,
        bits=bits,
        low=int(min(low for low, _ in extremes)),
        high=int(max(high for _, high in extremes)),
        constant=all(low == high for low, high in extremes),
        drawn=is_drawn(values),
        pages=header.pages,
        plain=bits == 8 and header.pages == 1 and checked == (width, height),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def read_pixels(path: Path, depth: int = 16) -> np.ndarray:
    """The pixels that training sees.

    Args:
        path: An image file.
        depth: Bits that the camera uses in files with more than 8 bits (:func:`camera_depth`), of which the upper 8 are
            taken; files with 8 bits are read as they are.

    Returns:
        (h, w, 3) uint8, BGR.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        pixels = pixels_of(_read(path), depth)
    except OSError as e:
        pixels = f"cannot be read ({e.strerror or e})"
    if isinstance(pixels, str):
        raise UserError(f"{path}: {pixels}; restore it, or take it out of the data")
    return pixels


def pixels_of(data: bytes, depth: int = 16, most: int = MOST_PIXELS) -> np.ndarray | str:
    """As :func:`read_pixels`, for the bytes of a file; or why it has none, a sentence part such as "is empty".

    Images whose header tells of more than ``most`` pixels are not decoded.
    """
    decoded = _decode(data, most)
    return decoded if isinstance(decoded, str) else _scaled(decoded[1], depth)


def camera_depth(facts: Iterable[ImageFacts]) -> int:
    """Bits that a camera uses in the files with more than 8 bits: one of :data:`DEPTHS`, 8 if there are none.

    The smallest number that holds the highest value of all files: one scale for the whole set, so that a dark image
    stays darker than a bright one.
    """
    highest = max((fact.high for fact in facts if fact.bits > 8), default=0)
    return next(depth for depth in DEPTHS if highest < 1 << depth)


def check_depth(labeled: Iterable[ImageFacts], depth: int) -> None:
    """Check that the scale of all files with more than 8 bits suits the labeled ones.

    Args:
        labeled: Facts of the labeled images.
        depth: :func:`camera_depth` of all images.

    Raises:
        UserError: Other images use at least three more bits, so that the labeled ones would be nearly black.
    """
    own = camera_depth(labeled)
    if 8 < own <= depth - 3:
        raise UserError(
            f"the labeled images use {own} bits and images without labels {depth}: one scale cannot serve both; "
            "store both in the same way, for example shifted to 16 bits or converted to 8"
        )


def write_plain(path: Path, target: Path, depth: int = 16) -> None:
    """Write the pixels of an image file as a PNG from which Ultralytics reads exactly :func:`read_pixels`.

    Args:
        path: An image file.
        target: The PNG, written whole or not at all.
        depth: As of :func:`read_pixels`.

    Raises:
        UserError: The file cannot be read, or the PNG not be written.
    """
    pixels = read_pixels(path, depth)
    gray = pixels[..., 0]
    if all(np.array_equal(gray, pixels[..., channel]) for channel in (1, 2)):
        pixels = gray
    # Encoded in memory, since OpenCV cannot write to all paths on Windows.
    write_bytes(target, cv2.imencode(".png", pixels)[1].tobytes())


def suffix_for_training(path: Path, facts: ImageFacts) -> str:
    """The suffix of an image in an imported data set: its own as far as Ultralytics reads it in the same way."""
    if not facts.plain:
        return ".png"
    own = path.suffix.lower()
    return own if own in (_TIFF if facts.suffix == ".tif" else _NOT_TIFF) else facts.suffix


def pixel_remarks(images: Sequence[tuple[Path, ImageFacts]], depth: int) -> list[str]:
    """What a user should know of the pixels of a data set: sentences without a full stop, with the first three names.

    Args:
        images: The images that are used.
        depth: As of :func:`read_pixels`.
    """

    def of(condition: Callable[[ImageFacts], bool], singular: str, plural: str) -> Iterator[str]:
        found = [path for path, facts in images if condition(facts)]
        if found:
            more = f", and {len(found) - 3} more" if len(found) > 3 else ""
            yield f"{counted(len(found), singular, plural)} ({', '.join(short_paths(found[:3], 0))}{more})"

    def reduced(value: int, facts: ImageFacts) -> int:
        return value >> _shift(facts.bits, depth)

    def constant(facts: ImageFacts) -> bool:
        return facts.constant or reduced(facts.low, facts) == reduced(facts.high, facts)

    def nearly_black(facts: ImageFacts) -> bool:
        return not constant(facts) and reduced(facts.high, facts) < NEARLY_BLACK

    highest = max((facts.high for _, facts in images if facts.bits > 8), default=0)
    used = f"read as {depth}-bit gray values (the highest is {highest}), of which training sees the upper 8 bits"
    return [
        *(
            f"{found}: {used}"
            for found in of(lambda f: f.bits > 8, "image of more than 8 bits", "images of more than 8 bits")
        ),
        *(f"{found}: every pixel has the same value" for found in of(constant, "constant image", "constant images")),
        *(
            f"{found}: no gray value from {NEARLY_BLACK} on, of 255; look at them, or set preprocess.normalize=true"
            for found in of(nearly_black, "nearly black image", "nearly black images")
        ),
        *(
            f"{found}: only the first page is used"
            for found in of(lambda f: f.pages > 1, "file with several pages", "files with several pages")
        ),
    ]


def _shift(bits: int, depth: int) -> int:
    """Number of lower bits that are dropped."""
    return depth - 8 if bits > 8 else 0


def _scaled(values: np.ndarray, depth: int) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    cut: np.ndarray = np.minimum(values >> _shift(16, depth), 255).astype(np.uint8)
    return cut


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise OSError(f"it is larger than {_LARGEST_FILE >> 30} GiB")
    return data


def _decode(data: bytes, most: int = MOST_PIXELS) -> tuple[Header, np.ndarray] | str:
    """Header and values, (h, w, 3) uint8 or uint16 in BGR; or why the file cannot be used."""
    with _quiet:
        header = read_header(data)
        if isinstance(header, str):
            return header
        pixels = header.image.width * header.image.height
        if problem := pixels_problem(pixels, most):
            return problem
        with _one_large if pixels > _LARGE else contextlib.nullcontext():
            values = _values(header, data)
    return values if isinstance(values, str) else (header, values)


def _values(header: Header, data: bytes) -> np.ndarray | str:
    if header.suffix == ".jpg":
        whole = with_end_mark(header, data)
        if whole is None:
            return "cannot be decoded (the file is truncated); restore it"
        data = whole
    elif header.suffix == ".tif" or (header.suffix == ".png" and header.pages > 1):  # OpenCV misses damage in these
        problem = decoding_error(header, data)
        if problem:
            return f"cannot be decoded ({problem}); restore it"
    values = _opencv(header, data)
    if values is None:
        values = _unchanged(data)
        if values is None or values.dtype in (np.uint8, np.uint16):
            problem = decoding_error(header, data) or "a variant that OpenCV does not read"
            return f"cannot be decoded ({problem}); restore it, or convert it to .png or .jpg"
    if values.dtype == np.int16 and values.min() >= 0:
        values = values.view(np.uint16)
    if values.dtype not in (np.uint8, np.uint16):
        kind = {"f": "float", "i": "signed", "u": "unsigned"}.get(values.dtype.kind, str(values.dtype))
        return f"holds {8 * values.dtype.itemsize}-bit {kind} values; convert it to 8 or 16 bit"
    if values.dtype == np.uint16 and header.separate:
        return "holds 16-bit channels in separate planes, which OpenCV reads wrongly; convert it to .png"
    return 65535 - values if values.dtype == np.uint16 and header.inverted else values


def _opencv(header: Header, data: bytes) -> np.ndarray | None:
    """The values as training decodes them, before more than 8 bits are cut; None if OpenCV cannot."""
    buffer = np.frombuffer(data, np.uint8)
    try:
        if header.suffix == ".tif" and header.pages == 1:
            # As Ultralytics does: how OpenCV turns a TIFF depends on the function and on its version.
            done, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
            if done and pages[0].ndim == 3:
                return np.ascontiguousarray(pages[0][..., :3])
        return cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None


def _unchanged(data: bytes) -> np.ndarray | None:
    """The values as they are stored, of whatever type."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


class _Quiet:
    """Inside, OpenCV and Pillow print no warnings about the files of other programs; for several threads at once.

    What matters about a file is returned. Both settings belong to the process, so the first thread that enters changes
    them, and the last one that leaves restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                level = cv2.utils.logging.getLogLevel()
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
                self._restore.callback(cv2.utils.logging.setLogLevel, level)
                self._restore.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore.close()


_quiet = _Quiet()
