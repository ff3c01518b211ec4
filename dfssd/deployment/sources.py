"""What ``dfssd predict`` looks at: images, folders, globs, lists, videos, cameras, and streams, as frames."""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.images.pixels import NOT_READ, SUFFIXES, UNREAD_SUFFIXES, read_pixels
from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.wording import counted

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
"""Suffixes of video files, in lower case."""

STREAMS = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "tcp://", "udp://")
"""How the address of a stream begins."""

_WHOLE = 0.98
"""Share of the frames that a video file claims from which it counts as whole: some count a few too many."""

_WAIT = 0.2
"""How long a thread waits before it looks whether it is to end [s]."""


@dataclass(frozen=True)
class Frame:
    """An image, or one of a video or stream.

    Attributes:
        name: Path of its file below the folder that all files share, with ``/``; or the name of the camera or stream.
        number: Which one of a video or stream, from 0; None: an image.
        pixels: (h, w, 3) uint8, BGR; None: it cannot be read.
        problem: Why it cannot be read; empty if it can.
    """

    name: str
    number: int | None = None
    pixels: np.ndarray | None = None
    problem: str = ""


@dataclass(frozen=True)
class ImageFile:
    """An image.

    Attributes:
        path: Its file.
        name: As of :class:`Frame`.
    """

    path: Path
    name: str
    count = 1
    live = False

    def frames(self, bits: int, every: int) -> Iterator[Frame]:
        """The image, as training reads it.

        Args:
            bits: That the camera uses in files with more than 8 of them.
            every: Of no meaning for an image.
        """
        if self.path.suffix.lower() in UNREAD_SUFFIXES:
            yield Frame(self.name, problem=NOT_READ)
            return
        try:
            yield Frame(self.name, pixels=read_pixels(self.path, bits))
        except UserError as e:
            yield Frame(self.name, problem=str(e).removeprefix(f"{self.path}: ").partition("; restore it, or take")[0])


@dataclass(frozen=True)
class Moving:
    """A video, a camera, or a stream.

    Attributes:
        address: Path, number of the camera, or URL.
        name: As of :class:`Frame`.
        live: Whether it goes on while one frame is looked at; then the newest one is next, and others are left out.
    """

    address: str | int
    name: str
    live: bool

    @property
    def count(self) -> int | None:
        """Number of frames as far as the file tells; None: it is live, or does not tell."""
        if self.live:
            return None
        capture = cv2.VideoCapture(self.address)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return frames if frames > 0 else None

    def frames(self, bits: int, every: int) -> Iterator[Frame]:
        """The frames in their order; a single one with a problem if it cannot be opened.

        Args:
            bits: Of no meaning for videos, which have 8.
            every: Of so many frames, one.
        """
        capture = cv2.VideoCapture(self.address)
        if not capture.isOpened():
            yield Frame(self.name, problem="cannot be opened; check the address, and whether another program uses it")
            return
        reader = _Newest(capture) if self.live else _All(capture)
        try:
            number, count = -1, self.count
            for number, pixels in iter(reader.read, None):
                if number % every == 0:
                    yield Frame(self.name, number, pixels)
            if number < 0:
                yield Frame(self.name, problem="holds no frame that OpenCV can read")
            elif count is not None and number + 1 < _WHOLE * count:
                yield Frame(self.name, problem=f"breaks off after {number + 1} of {counted(count, 'frame')}")
            elif self.live:
                LOGGER.warning(f"{self.name}: the stream has ended")
        finally:
            reader.close()


Input = ImageFile | Moving
"""What a source consists of."""


class _All:
    """Every frame of a video."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self.capture, self.number = capture, -1

    def read(self) -> tuple[int, np.ndarray] | None:
        """Number and pixels of the next frame, None at the end."""
        done, pixels = self.capture.read()
        self.number += 1
        return (self.number, pixels) if done else None

    def close(self) -> None:
        """Release the file."""
        self.capture.release()


class _Newest:
    """The newest frame of something live: a thread takes all frames, so that none waits in a buffer and grows old."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self.all = _All(capture)
        self.changed = threading.Condition()
        self.newest: tuple[int, np.ndarray] | None = None
        self.ended = self.closing = False
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        while not self.closing:
            found = self.all.read()
            with self.changed:
                self.newest, self.ended = found or self.newest, found is None
                self.changed.notify()
            if found is None:
                return

    def read(self) -> tuple[int, np.ndarray] | None:
        """Number and pixels of the newest frame that has not been read, waiting for one; None at the end."""
        with self.changed:
            while self.newest is None and not self.ended:
                self.changed.wait(_WAIT)  # with a time, so that Ctrl-C is heard on Windows, too
            found, self.newest = self.newest, None
        return found

    def close(self) -> None:
        """End the thread and release the device."""
        self.closing = True
        self.thread.join(timeout=5)
        self.all.close()


def find_inputs(
    source: str | int | Sequence[str | int], leave_out: Callable[[Sequence[Path]], Collection[Path]] | None = None
) -> list[Input]:
    """What a source consists of, folders searched, globs resolved, and lists read.

    Args:
        source: An image, a video, a folder (with those below it), a glob, a ``.txt`` list of paths (relative to the
            list, one a line), the number of a camera, the URL of a stream; or several of these.
        leave_out: Says which of the files that were found are drawings of earlier calls, which do not belong to it.

    Raises:
        UserError: Something does not exist, or there is nothing to look at.
    """
    files: list[Path] = []
    live: list[Input] = []
    given = [source] if isinstance(source, (str, int)) else source
    for entry in given:
        if isinstance(entry, int) or entry.isdecimal():
            live.append(Moving(int(entry), f"camera {entry}", live=True))
        elif entry.lower().startswith(STREAMS):
            live.append(Moving(entry, without_password(entry), live=True))
        else:
            files += _files(entry)
    if leave_out is not None:
        drawings = leave_out(files)
        files = [file for file in files if file not in drawings]
        if drawings:
            LOGGER.info(f"drawings of earlier predictions, left out: {len(drawings)}")
    if not files and not live:
        raise UserError(f"source={', '.join(map(str, given))}: holds no images or videos")
    return [*_named(list(dict.fromkeys(files))), *live]


def without_password(source: str) -> str:
    """A source; the address of a stream without the user and the password that it may hold."""
    scheme, sign, rest = source.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if sign else source


def _files(entry: str) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_dir():
        return _usable(path.rglob("*"))
    if path.suffix.lower() == ".txt" and path.is_file():
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        listed = [path.parent / line.strip() for line in lines if line.strip()]
        if missing := next((one for one in listed if not one.is_file()), None):
            raise UserError(f"source={entry}: lists {missing}, which does not exist")
        return listed
    if path.is_file():
        return [path]
    if glob.has_magic(entry):
        return _usable(map(Path, glob.iglob(entry, recursive=True)))
    raise UserError(f"source={entry}: does not exist; give an image, a folder, a video, a camera, or a stream")


def _usable(paths: Iterator[Path] | map[Path]) -> list[Path]:
    """Files that are images (also of kinds that are not read, which are reported) or videos; hidden ones are none."""
    known = SUFFIXES | UNREAD_SUFFIXES | VIDEOS
    return sorted(p for p in paths if p.suffix.lower() in known and not p.name.startswith(".") and p.is_file())


def _named(files: list[Path]) -> list[Input]:
    """The files with their names below the folder that they share."""
    if not files:
        return []
    absolute = [Path(os.path.abspath(path)) for path in files]
    try:
        shared = Path(os.path.commonpath([path.parent for path in absolute]))
    except ValueError:  # on several drives of Windows
        shared = Path()

    def name(path: Path) -> str:
        return path.relative_to(shared if path.is_relative_to(shared) else path.anchor).as_posix()

    return [
        Moving(str(path), name(path), live=False) if path.suffix.lower() in VIDEOS else ImageFile(path, name(path))
        for path in absolute
    ]
