"""Allowed values: declared once per key, checked in one place, tested with generated wrong values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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
            and math.isfinite(value)
            and (value > self.low if self.exclusive else value >= self.low)
            and value <= self.high
        ):
            return None
        bounds = f"{'>' if self.exclusive else '>='} {self.low:g}"
        bounds += "" if math.isinf(self.high) else f" and <= {self.high:g}"
        return f"must be {'a whole number' if self.integer else 'a number'} {bounds}"

    def wrong(self) -> list[Any]:
        """Beyond both ends, and other types."""
        values: list[Any] = [self.low - 1, math.nan, math.inf, "many", True, None, [1]]
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


@dataclass(frozen=True)
class Text:
    """A string that is not blank."""

    type: str = "str"

    def problem(self, value: Any) -> str | None:
        """Why ``value`` is not allowed."""
        return None if isinstance(value, str) and value.strip() else "must be a string"

    def wrong(self) -> list[Any]:
        """Blank strings and other types."""
        return ["", "  ", 1, 0.5, True, None, ["a"]]


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


def optional(check: Check) -> Or:
    """The range, or None (null in YAML, ``none`` on the command line)."""
    return Or((None,), check)


BOOLEAN = OneOf((True, False))
UNIT = Number(0, 1)
TEXT = Text()


def _all(value: Any, good: Callable[[Any], bool], *, kinds: type | tuple[type, ...], empty: bool = False) -> bool:
    """Whether ``value`` is a list of ``kinds`` that are all ``good``; truth values are not numbers."""
    if not isinstance(value, list) or not (value or empty):
        return False
    return all(isinstance(v, kinds) and not isinstance(v, bool) and good(v) for v in value)


def _is_label_share(value: Any) -> bool:
    if isinstance(value, float):
        return 0 < value <= 1
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


LABELED = Special(
    "float | int",
    _is_label_share,
    "must be a share in (0, 1] written with a point (0.1, 1.0) or a number of images (200)",
    (0, -1, 1.5, 0.0, True, "half", None, [0.1]),
)
SPLIT_RATIO = Special(
    "list",
    lambda v: _all(v, lambda s: s > 0, kinds=(int, float)) and len(v) == 3 and abs(sum(v) - 1) < 1e-6,
    "must be three positive shares that add up to 1",
    ([0.5, 0.5, 0.5], [0.5, 0.5], [1.0, 0.0, 0.0], 0.8, "0.8", None),
)
TEXTS = Special(
    "str | list",
    lambda v: isinstance(v, str) or _all(v, lambda s: True, kinds=str),
    "must be a string or a list of strings",
    ([], [1], 1, True, None),
)
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
    ([0, 0, 0, 5], [0, 0, 5], [0, 0, 5.5, 5], [-1, 0, 5, 5], 5, "all"),
)
