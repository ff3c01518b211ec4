"""Help pages: entries of a key, its range, and its meaning, in the width of the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator

_WIDEST = 100
"""Columns of a page at most: longer lines are hard to read."""

_NARROWEST = 40

_COLUMN = 28
"""Width of keys with defaults, behind which ranges begin."""

_HEADING = "\x1b[1m{}\x1b[0m"


def page_width() -> int:
    """Columns of a page: those of the terminal, or of ``COLUMNS``, within limits."""
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))


def heading(text: str) -> str:
    """A heading, bold on a terminal."""
    text = paragraph(text)
    return _HEADING.format(text) if sys.stdout.isatty() else text


def paragraph(text: str, indent: int = 0) -> str:
    """Text in the width of the page."""
    space = " " * indent
    return textwrap.fill(
        text,
        page_width(),
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )


def entry(key: str, default: str | None, allowed: str, meaning: str) -> Iterator[str]:
    """The lines of a key: ``key=default``, its range behind that or below, and what it does.

    Args:
        key: Its name.
        default: Its default as it is typed; None: it has none.
        allowed: Its range in words.
        meaning: What it does; may be empty.
    """
    first = f"  {key}" if default is None else f"  {key}={default}"
    beside = f"{first:<{_COLUMN}}  {allowed}"
    if allowed and len(beside) <= page_width():
        yield beside
    else:
        yield first
        if allowed:
            yield paragraph(allowed, 6)
    if meaning:
        yield paragraph(meaning, 6)


def show(parts: Iterable[str]) -> None:
    """Print a page, or as much of it as is read: ``dfssd --help | head``."""
    try:
        print("\n".join(parts), flush=True)
    except BrokenPipeError:  # Python flushes once more at its end: into nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
