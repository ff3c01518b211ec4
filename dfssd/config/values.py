"""Allowed values: declared once per key, checked in one place, tested with generated wrong values."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Protocol


class Check(Protocol):
    """The range of a value."""

    @property
    def type(self) -> str:
        """Its type as documented in ``cfg/default.yaml``, for example ``float`` or ``str | list``."""

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed, to follow ``key=value``; None if it is."""

    def wrong(self) -> list[Any]:
        """Some values that are not allowed."""


def is_beyond_all_bounds(value: Any) -> bool:
    """Whether a number is NaN, infinite, or a whole number of more than 63 bits, which torch and numpy cannot hold."""
    if isinstance(value, int):
        return value.bit_length() > 63
    return isinstance(value, float) and not math.isfinite(value)


@dataclass(frozen=True)
class Number:
    """A number in [low, high], or in (low, high] if ``exclusive``; an integer if ``integer``."""

    low: float = 0.0
    high: float = math.inf
    integer: bool = False
    exclusive: bool = False

    @property
    def type(self) -> str:
        """``int`` or ``float``."""
        return "int" if self.integer else "float"

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed; True and False are not numbers; NaN and infinity are in no range."""
        good = isinstance(value, int if self.integer else (int, float)) and not isinstance(value, bool)
        if (
            good
            and not is_beyond_all_bounds(value)
            and (value > self.low if self.exclusive else value >= self.low)
            and value <= self.high
        ):
            return None
        shown = "{:.0f}" if self.integer else "{:g}"
        bounds = f"{'>' if self.exclusive else '>='} {shown.format(self.low)}"
        if not math.isinf(self.high):
            bounds += f" and <= {shown.format(self.high)}"
        elif good and is_beyond_all_bounds(value) and value > 0:
            bounds += ", and not that large"
        return f"must be {'a whole number' if self.integer else 'a number'} {bounds}"

    def wrong(self) -> list[Any]:
        """Beyond both ends, and other types."""
        values: list[Any] = [self.low - 1, math.nan, math.inf, 10**30, 10**400, "many", True, None, [1]]
        values += [self.low] if self.exclusive else []
        values += [] if math.isinf(self.high) else [self.high + 1]
        return [*values, self.low + 0.5] if self.integer else values


@dataclass(frozen=True)
class OneOf:
    """One of some words or truth values."""

    choices: tuple[str | bool, ...]

    @property
    def type(self) -> str:
        """Types of the choices."""
        kinds = {type(choice).__name__ for choice in self.choices}
        return " | ".join(kind for kind in ("str", "bool") if kind in kinds)

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed; 1 is not True."""
        if any(value == choice and type(value) is type(choice) for choice in self.choices):
            return None
        shown = ", ".join(str(c).lower() if isinstance(c, bool) else c for c in self.choices)
        return f"must be one of: {shown}"

    def wrong(self) -> list[Any]:
        """Other words, numbers and nothing."""
        return ["", "something else", 1, 0.0, None, []]


def is_one_line(text: str) -> bool:
    """Whether a text has neither line breaks nor other control characters, which no file list or message survives."""
    return len(text.splitlines()) < 2 and not any(unicodedata.category(c) == "Cc" for c in text)


def is_too_long(text: str) -> bool:
    """Whether a text is no path: names have at most 255 bytes, with what is appended to them here, paths 4,095."""
    parts = text.encode("utf-8", "surrogatepass").split(b"/")
    return sum(map(len, parts)) + len(parts) > 3000 or max(map(len, parts)) > 200


@dataclass(frozen=True)
class Text:
    """A string that is not blank, in one line, without other control characters, and short enough for a path."""

    type: str = "str"

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed."""
        if not isinstance(value, str) or not value.strip():
            return "must be a string"
        if is_too_long(value):
            return "must be shorter: a name in a path has at most 200 bytes here"
        return None if is_one_line(value) else "must be one line without control characters"

    def wrong(self) -> list[Any]:
        """Blank strings, several lines, and other types."""
        return ["", "  ", "a\nb", "a\x00b", "a\u2028b", 256 * "a", 1000 * "abc/x", 1, 0.5, True, None, ["a"]]


@dataclass(frozen=True)
class Special:
    """A value with its own check.

    Attributes:
        type: As documented.
        allows: Whether a value is allowed.
        requirement: What it must be, for the message.
        examples: Some wrong values.
    """

    type: str
    allows: Callable[[Any], bool]
    requirement: str
    examples: tuple[Any, ...]

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed."""
        return None if self.allows(value) else self.requirement

    def wrong(self) -> list[Any]:
        """The examples."""
        return list(self.examples)


@dataclass(frozen=True)
class Or:
    """Some words, truth values or None in addition to another range, which words the message."""

    extra: tuple[str | bool | None, ...]
    check: Check

    @property
    def type(self) -> str:
        """All types but that of None."""
        kinds = {type(value).__name__ for value in self.extra if value is not None} | set(self.check.type.split(" | "))
        return " | ".join(kind for kind in ("str", "bool", "float", "int", "list") if kind in kinds)

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed."""
        if any(value == extra and type(value) is type(extra) for extra in self.extra):
            return None
        return self.check.problem(value)

    def wrong(self) -> list[Any]:
        """What the other range does not allow either."""
        return [v for v in self.check.wrong() if not any(v == e and type(v) is type(e) for e in self.extra)]


def allowed(check: Check) -> str:
    """The range of a value in words, such as ``auto, or a whole number >= 1``, as its messages say it."""
    if isinstance(check, Or):
        named = [str(extra).lower() if not isinstance(extra, str) else extra for extra in check.extra]
        return f"{', '.join(named)}, or {allowed(check.check)}"
    if isinstance(check, OneOf):
        return " | ".join(str(choice).lower() if isinstance(choice, bool) else choice for choice in check.choices)
    return (check.problem(object()) or "").removeprefix("must be ")


def optional(check: Check) -> Or:
    """The range, or None (null in YAML, ``none`` on the command line)."""
    return Or((None,), check)


@dataclass(frozen=True)
class Needs:
    """Another key without which a key has no effect.

    Attributes:
        key: The other key, of either kind.
        met: Whether the key acts with that value of the other one.
        instead: What to do, for the message.
    """

    key: str
    met: Callable[[Any], bool]
    instead: str


BOOLEAN = OneOf((True, False))
UNIT = Number(0, 1)
WEIGHT = Number(0)
COUNT = Number(1, integer=True)
TEXT = Text()


def _all(value: Any, good: Callable[[Any], bool], *, kinds: type | tuple[type, ...], empty: bool = False) -> bool:
    """Whether ``value`` is a list of ``kinds`` that are all ``good``; truth values are not numbers."""
    if not isinstance(value, list) or not (value or empty):
        return False
    return all(
        isinstance(v, kinds) and not isinstance(v, bool) and not is_beyond_all_bounds(v) and good(v) for v in value
    )


def _is_label_share(value: Any) -> bool:
    if isinstance(value, float):
        return 0 < value <= 1
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and not is_beyond_all_bounds(value)


LABELED = Special(
    "float | int",
    _is_label_share,
    "must be a share in (0, 1] written with a point (0.1, 1.0) or a number of images (200)",
    (0, -1, 1.5, 0.0, 10**30, True, "half", None, [0.1]),
)
SPLIT_RATIO = Special(
    "list",
    lambda v: _all(v, lambda s: s > 0, kinds=(int, float)) and len(v) == 3 and abs(sum(v) - 1) < 1e-6,
    "must be three positive shares that add up to 1",
    ([0.5, 0.5, 0.5], [0.5, 0.5], [1.0, 0.0, 0.0], 0.8, "0.8", None),
)


def _is_short_line(text: str) -> bool:
    return is_one_line(text) and not is_too_long(text)


TEXTS = Special(
    "str | list",
    lambda v: _all(v.split(",") if isinstance(v, str) else v, _is_short_line, kinds=str),
    "must be a string or a list of strings, each in one line and short enough for a path",
    ([], [1], 1, True, None, "a\nb", ["a", "b\x00"], 256 * "a", ["a", 256 * "a"]),
)


def several_of(choices: tuple[str, ...]) -> Special:
    """One or more of some words, as a list or separated by commas."""
    return Special(
        "str | list",
        lambda v: _all(listed(v) if isinstance(v, str) else v, choices.__contains__, kinds=str),
        f"must be one or more of: {', '.join(choices)}",
        ("something else", f"{choices[0]},something else", f"{choices[0]},", "", [], [1], 1, True),
    )


def listed(value: str | Sequence[str] | None) -> list[str]:
    """The words of a list, or of a string in which commas separate them; each once."""
    words = value.split(",") if isinstance(value, str) else value or ()
    return list(dict.fromkeys(word.strip() for word in words))


LAYERS = Special(
    "str | list",
    lambda v: v == "auto" or _all(v, lambda n: n >= 0, kinds=int),
    "must be auto or a list of layer numbers, for example [15,18,21]",
    ([], [-1], [1.5], "all", 15, None),
)
STEPS = Special(
    "str | list",
    lambda v: isinstance(v, str) or _all(v, lambda n: True, kinds=int),
    "must be the numbers of classes of the steps, such as 3,3",
    ([], [1.5], 3, True, ["3"]),
)
SHARES = Special(
    "list",
    lambda v: _all(v, lambda s: 0 < s < 1, kinds=(int, float), empty=True),
    "must be none or a list of shares between 0 and 1, for example [0.5,0.8]",
    ([0.0], [1], [0.5, 1.5], 0.5, "0.5", [True]),
)
CROP = Special(
    "list",
    lambda v: _all(v, lambda n: n >= 0, kinds=int) and len(v) == 4 and v[2] > v[0] and v[3] > v[1],
    "must be [x1, y1, x2, y2] in pixels",
    ([0, 0, 0, 5], [0, 0, 5], [0, 0, 5.5, 5], [-1, 0, 5, 5], [0, 0, 10**30, 5], 5, "all"),
)


def _stays_inside(name: Any) -> bool:
    """Whether a relative path leads to something below the folder that it is joined to, on any system."""
    if TEXT.problem(name):
        return False
    paths = PurePosixPath(name), PureWindowsPath(name)
    return all(path.parts and not path.anchor and ".." not in path.parts for path in paths)


NAME = Special(
    "str",
    _stays_inside,
    "must be a name in one line, of a folder inside project=",
    ("..", "../x", "a/../../x", "/tmp/x", ".", "C:x", "a\\..\\b", "a\nb", "  ", 1),
)
CACHE = OneOf((True, False, "ram", "disk"))
_PART = re.compile(r"\d+(\.\w+)*")
FREEZE = Special(
    "int | list",
    lambda v: (
        (isinstance(v, int) and not isinstance(v, bool) and v >= 0)
        or _all(v, lambda p: p >= 0 if isinstance(p, int) else bool(_PART.fullmatch(p)), kinds=(int, str))
    ),
    "must be a number of layers, or a list of layer numbers or parts such as 22.cv2",
    (-1, 1.5, True, "abc", "10", [], [-1], [1.5], ["abc"], [True]),
)
