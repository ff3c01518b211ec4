"""Text files of a source: UTF-8 with or without byte-order mark, and a way to look into the others."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

RESAVE = "is not UTF-8; save it as UTF-8"
"""Problem of a file in another encoding."""

_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Text:
    """A text file.

    Attributes:
        text: Its content; a guess if it is not UTF-8, good enough to see what kind of file it is.
        utf8: Whether it is UTF-8.
    """

    text: str
    utf8: bool


def read_text_of(file: Path) -> Text:
    """Read a text file, whatever its encoding.

    Line ends are kept. A file that is not UTF-8 is taken as UTF-16 if it has a mark of it, else byte by byte: digits,
    blanks and line ends are the same in nearly all encodings.

    Raises:
        OSError: It cannot be read.
    """
    return decoded(file.read_bytes())


def decoded(content: bytes) -> Text:
    """The text of the bytes of a file; see :func:`read_text_of`."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return Text(content.decode(encoding, errors="replace"), False)
    try:
        return Text(content.decode("utf-8-sig"), True)
    except UnicodeDecodeError:
        return Text(content.decode("latin-1"), False)


def unreadable(error: OSError) -> str:
    """Problem of a file that the system does not let us read."""
    return f"cannot be read ({error.strerror or type(error).__name__}); correct its permissions, or restore it"
