"""Finding and checking image files, many at a time."""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from rich.console import Console
from rich.progress import track

from dfssd.datasets.images.headers import reader
from dfssd.log import note
from dfssd.trust.limits import pixels_problem

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""Errors that readers raise for damaged files."""

THREADS = min(16, (os.cpu_count() or 1) + 1)
"""Number of threads that read files."""

_CHUNK = 32
"""Most files that one job of the pool takes."""

_MANY = 500
"""Files from which on their number is shown while they are read."""

_UNSAFE = re.compile(r"[^\w .()\-]")
_LONGEST = 180
"""[bytes] of a name without its suffix; file systems take 255, of which writers of temporary files use up to 60."""

S = TypeVar("S")
T = TypeVar("T")


def map_files(function: Callable[[S], T], files: Sequence[S], what: str) -> list[T]:
    """Apply ``function`` to each file in a pool of threads, with a progress bar ``what``; results in order.

    Threads, since decoding releases the interpreter lock and needs no pickling; several files at a time, since handing
    over a job takes as long as reading a label.
    """
    size = max(1, min(_CHUNK, len(files) // (4 * THREADS)))
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(lambda chunk: [function(file) for file in chunk], chunks)
        return list(progress((result for results in done for result in results), what, len(files)))


def progress(steps: Iterable[T], what: str, total: int, many: int = _MANY) -> Iterable[T]:
    """``steps``, with a progress bar on the terminal if there are ``many``, or a note behind the line of a run."""
    if total >= many and note(what):
        return _noted(steps, what, total)
    console = Console(stderr=True)
    return track(steps, what, total, console=console, transient=True, disable=total < many or not console.is_terminal)


def _noted(steps: Iterable[T], what: str, total: int) -> Iterator[T]:
    try:
        for number, step in enumerate(steps):
            if number % _CHUNK == 0:
                note(f"{what}: {number:,} of {total:,}")
            yield step
    finally:
        note("")


def open_image(source: Path | io.BytesIO) -> ImageFile:
    """Open an image, a file or its bytes, by its content, whatever its suffix is; only the header is read.

    ``PIL.Image.open`` is not used: Ultralytics replaces it, for the whole process, by one that tries to install a
    package when a file is damaged.

    Raises:
        OSError or SyntaxError: The file cannot be read, is of no known type, or has too many pixels.
    """
    if isinstance(source, io.BytesIO):
        start = source.getvalue()[:16]
    else:
        with open(source, "rb") as file:
            start = file.read(16)
    opened = reader(start)
    if opened is None:
        raise OSError("it is not an image")
    image = opened(source)
    if problem := pixels_problem(image.width * image.height):
        image.close()
        raise OSError(problem)
    return image


def gray_values(image: Image.Image, depth: int = 16) -> Image.Image:
    """An opened image as 8-bit gray values, the upper 8 of ``depth`` where it has more; Pillow itself clips at 255."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> (depth - 8)).clip(0, 255).astype(np.uint8))
    return image.convert("L")


def not_decoded(error: Exception) -> str:
    """The reason why a file that raised one of :data:`UNREADABLE` cannot be used."""
    return f"cannot be decoded ({str(error).splitlines()[0] if str(error) else error.__class__.__name__})"


def safe_names(files: Iterable[Path], suffixes: Iterable[str] | None = None) -> list[str]:
    """A file name for each of ``files``, unique in one folder (letter case ignored) together with its label file.

    Names are kept as far as possible: letters, digits, spaces and ``._-()`` stay. A name that occurs twice, even with
    another suffix, gets a short hash of its path, and so does one that is too long for the file system with what is
    appended to names while files are written.

    Args:
        files: Paths, also such that are no valid text.
        suffixes: The suffix of each name; None: that of the file in lower case.
    """
    files = list(files)
    names: list[str] = []
    taken: set[str] = set()
    for file, suffix in zip(files, suffixes or (file.suffix.lower() for file in files), strict=True):
        stem = _UNSAFE.sub("_", file.stem).strip(" .") or "image"
        short = _cut(stem, _LONGEST)
        path, salt = file.as_posix().encode("utf-8", "surrogatepass"), b""
        while short != stem or _folded(stem) in taken:
            short = stem = f"{_cut(short, _LONGEST - 9)}-{hashlib.sha1(path + salt).hexdigest()[:8]}"
            salt += b"+"
        taken.add(_folded(stem))
        names.append(stem + _UNSAFE.sub("_", suffix))
    return names


def _cut(text: str, length: int) -> str:
    """``text`` without the characters that do not fit into ``length`` bytes of UTF-8."""
    return text.encode()[:length].decode(errors="ignore").rstrip(" .")


def _folded(stem: str) -> str:
    """What names share that some file system takes for one."""
    return unicodedata.normalize("NFC", stem).casefold()
