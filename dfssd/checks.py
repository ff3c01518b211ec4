"""Checks of single values in constructors: return the value, or raise a ``ValueError`` with what it must be."""

from __future__ import annotations

from typing import Any


def check_positive(name: str, value: Any) -> float:
    """``value`` as a float.

    Raises:
        ValueError: It is not a number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{name}={value} must be a number > 0")
    return float(value)


def check_integer(name: str, value: Any, *, least: int = 0) -> int:
    """``value`` itself.

    Raises:
        ValueError: It is not a whole number of at least ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value} must be a whole number >= {least}")
    return value


def check_share(name: str, value: Any, *, least: float = 0.0, below: float = 1.0) -> float:
    """``value`` as a float.

    Raises:
        ValueError: It is not a number from ``least`` up to, but not including, ``below``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < below:
        bounds = f">= {least:g}" + (f" and < {below:g}" if below < float("inf") else "")
        raise ValueError(f"{name}={value} must be a number {bounds}")
    return float(value)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """``value`` itself.

    Raises:
        ValueError: It is not among ``choices``.
    """
    if value not in choices:
        raise ValueError(f"{name}={value} must be one of: {', '.join(choices)}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """``value`` itself.

    Raises:
        ValueError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value} must be true or false")
    return value
