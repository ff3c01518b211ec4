"""Values of JSON label files: taken if they are what the format says, else refused with a sentence part.

Nothing here trusts a type: a number may be a list, a name an object, an integer too large for a float.
"""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote

from dfssd.wording import counted

Box = tuple[float, float, float, float]
"""Corners x1, y1, x2, y2 [px]."""

Point = tuple[float, float]
"""x, y [px]."""

_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][\w+.\-]+://")
_LOCAL = re.compile(r"/data/local-files/\?(.*)$", re.DOTALL)
_UPLOAD = re.compile(r"(?:^|/)data/upload/(?:[^?]*/)?([^/?]+)")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxdict = 4
_short.maxlevel = 2


class Unusable(ValueError):
    """A value that cannot be used; the message is a sentence part such as "'bbox' is missing"."""


def shown(value: object) -> str:
    """A value of the file as it stands in a message: one line, shortened; text in quotes."""
    return _short.repr(value)


def number(value: Any, what: str) -> float:
    """A finite number; text that is one, as ``"12.5"``, counts.

    Raises:
        Unusable: It is something else.
    """
    if isinstance(value, str) and len(value) < 400 and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unusable(f"{what} is {shown(value)}, expected a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise Unusable(f"{what} is {'NaN' if math.isnan(result) else 'infinite'}; expected finite numbers")
    return result


def numbers(values: Any, what: str, n: int | None = None) -> list[float]:
    """A list of finite numbers, ``n`` of them if given.

    Raises:
        Unusable: It is something else.
    """
    if not isinstance(values, list):
        raise Unusable(f"{what} is {shown(values)}, expected a list of numbers")
    if n is not None and len(values) != n:
        raise Unusable(f"{what} has {counted(len(values), 'value')}, expected {n}")
    return [number(value, what) for value in values]


def name_of(value: Any, what: str) -> str:
    """The name of a class, stripped; a whole number is its own name.

    Raises:
        Unusable: It is empty, no text, or holds line breaks or other characters that no name has.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**15 else None
    if not isinstance(value, str):
        raise Unusable(f"{what} is {shown(value)}, expected the name of a class")
    name = value.strip()
    if not name:
        raise Unusable(f"{what} is empty; give the class a name")
    if not _printable(name):
        raise Unusable(f"{what} is {shown(name)}, which holds characters that cannot be written; rename it")
    return name


def image_name(value: Any, what: str) -> str:
    """The image that a file names, as a path with "/": backslashes turned, an address as of :func:`path_of`.

    Raises:
        Unusable: It is empty or no path.
    """
    if not isinstance(value, str):
        raise Unusable(f"{what} is {shown(value)}, expected the path of an image")
    path = re.sub(r"/{2,}", "/", path_of(value.strip()).replace("\\", "/"))
    while path.startswith("./"):
        path = path[2:]
    if path.rpartition("/")[2] in ("", ".", ".."):
        raise Unusable(f"{what} is {shown(value)}, expected the path of an image")
    if not _printable(path):
        raise Unusable(f"{what} is {shown(value)}, which holds characters that no path has")
    return path


def stated_size(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) [px] of an image as a file states it; None if it states none (missing, null or 0).

    Raises:
        Unusable: It is not a size.
    """
    sides = []
    for side, what in ((width, "the width"), (height, "the height")):
        value = 0.0 if side is None or side == "" else number(side, what)
        if value < 0 or value != int(value):
            raise Unusable(f"{what} is {shown(side)}, expected whole pixels")
        sides.append(int(value))
    return (sides[0], sides[1]) if all(sides) else None


def points_of(values: Any, what: str) -> list[Point]:
    """A list of [x, y].

    Raises:
        Unusable: It is something else.
    """
    if not isinstance(values, list):
        raise Unusable(f"{what} is {shown(values)}, expected a list of points")
    pairs = [numbers(value, what, 2) for value in values]
    return [(x, y) for x, y in pairs]


def paired(values: Sequence[float], what: str) -> list[Point]:
    """Points of a flat list x, y, x, y, ...

    Raises:
        Unusable: Their number is odd.
    """
    if len(values) % 2:
        raise Unusable(f"{what} has {counted(len(values), 'value')}, expected pairs of x and y")
    return list(zip(values[::2], values[1::2], strict=True))


def box_around(points: Iterable[Point]) -> Box:
    """The smallest upright box around points, at least one; it may lack area."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def box_around_ellipse(center: Point, rx: float, ry: float, angle: float) -> Box:
    """The smallest upright box around an ellipse.

    Args:
        center: [px]
        rx: Half of the axis that lies at ``angle`` [px].
        ry: Half of the other one [px].
        angle: [radians]

    Raises:
        Unusable: It has no area.
    """
    with_area((0, 0, rx, ry), "the ellipse")
    w = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    h = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return center[0] - w, center[1] - h, center[0] + w, center[1] + h


def with_area(box: Box, what: str) -> Box:
    """The box itself.

    Raises:
        Unusable: It has no area, or its numbers are too large.
    """
    x1, y1, x2, y2 = box
    if not all(math.isfinite(value) for value in box):
        raise Unusable(f"{what} has numbers that are too large")
    if x2 <= x1 or y2 <= y1:
        raise Unusable(
            f"{what} has no area (width {x2 - x1:g}, height {y2 - y1:g}); correct it, or remove it from the labels"
        )
    return box


def clipped(box: Box, size: tuple[int, int] | None) -> Box:
    """The part of a box inside an image of that size [px], if it is known.

    For boxes around circles and turned rectangles, which tools let stand out of the image; the corners of a plain box
    that lie outside of it are an error.
    """
    if size is None:
        return box
    width, height = size
    return max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))


def turned(corner: Point, width: float, height: float, degrees: float, pivot: Point) -> list[Point]:
    """Corners of a rectangle turned clockwise.

    Args:
        corner: Its upper left corner before it is turned.
        width: [px]
        height: [px]
        degrees: The angle.
        pivot: The point that stays.
    """
    x, y = corner
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    shifted = [(px - pivot[0], py - pivot[1]) for px, py in corners]
    return [(pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos) for dx, dy in shifted]


def first_of(values: Sequence[str]) -> str:
    """The first three of a list."""
    return ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")


def path_of(text: str) -> str:
    """The path in an address, without what only its server knows: host or bucket, query, Label Studio's folders."""
    if local := _LOCAL.search(text):
        return str(parse_qs(local[1], errors="surrogateescape").get("d", [""])[0])
    if upload := _UPLOAD.search(text):
        return unquote(upload[1], errors="surrogateescape")
    if not _ADDRESS.match(text):
        return text
    return unquote(text.partition("?")[0].partition("://")[2].partition("/")[2], errors="surrogateescape")


def _printable(text: str) -> bool:
    """Whether text has neither control characters nor halves of characters, which no file can hold."""
    return text.isprintable() or not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
