"""Texts from outside, such as class names and file names, in what people open: Markdown, HTML, and tables."""

from __future__ import annotations

import re
from typing import Any

from dfssd.errors import one_line

_MARKUP = re.compile(r"[\\`*\[\]<>&~]|(?<![^\W_])_|_(?![^\W_])|(?<=!)(?=\[)|^(?=#+ |[-+] |\d+[.)] )")
"""What Markdown takes for more than a character; an underscore inside a word is one, and tables mark
their own ``|``."""

_FORMULA = re.compile(r"[=+\-@\t\r]")
_MEASURED = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?%?( \[[-+\d., ]+\])?|-")
"""A number with its interval, or none: cells of our own that begin as a formula does."""


def in_markdown(text: str) -> str:
    """A text as Markdown that shows it: in one line, without links, pictures, emphasis, or HTML."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", one_line(text))


def code_block(text: str) -> list[str]:
    """Lines of Markdown that show a text as it is typed, whatever it holds."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, one_line(text), fence]


def in_table(cell: Any) -> Any:
    """A cell of a CSV table that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe."""
    if isinstance(cell, str) and _FORMULA.match(cell) and not _MEASURED.fullmatch(cell):
        return f"'{cell}"
    return cell
