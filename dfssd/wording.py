"""Words for messages: numbers with their nouns ("1 image", "2 images"), and files that can be told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_HISSING = re.compile(r"(s|x|z|(?<!epo)ch|sh)$")
_CONSONANT_Y = re.compile(r"(?<![aeiou])y$")


def plural(noun: str) -> str:
    """The plural of a regular noun, of which only the last word changes: "test images", "boxes", "copies"."""
    if _CONSONANT_Y.search(noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if _HISSING.search(noun) else f"{noun}s"


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number with what is counted: "1 image", "2,000 images".

    Args:
        n: The number.
        one: What stands behind 1: a noun, or more of the sentence ("image is").
        many: What stands behind any other number; None: the plural of the noun ``one``.
    """
    return f"{n:,} {one if n == 1 else many or plural(one)}"


def are(n: int) -> str:
    """The verb behind a number: "is" or "are"."""
    return "is" if n == 1 else "are"


def have(n: int) -> str:
    """The verb behind a number: "has" or "have"."""
    return "has" if n == 1 else "have"


def short_paths(files: Sequence[Path], folders: int = 1) -> list[str]:
    """The ends of some paths, with as many folders as tell different files apart: "train/images/1.jpg".

    Args:
        files: The files that stand side by side.
        folders: Folders that each has at least.
    """
    longest = max((len(file.parts) for file in files), default=0)
    for parts in range(folders + 1, longest + 1):
        ends = ["/".join(file.parts[-parts:]) for file in files]
        if len(set(ends)) == len(set(files)):
            return ends
    return [file.as_posix() for file in files]
