"""What the server allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfssd.errors import UserError

SHORTEST_TOKEN = 16
"""Characters of a token, so that it cannot be guessed over the network."""


@dataclass(frozen=True)
class Settings:
    """What the server allows.

    Attributes:
        most_bytes: Of the body of a request.
        most_pixels: Of an image.
        rate: Requests a minute of one client for a prediction; None: any number.
        queue: Images that wait or are computed at once, from the end of their upload to the answer.
        batch: Images that are computed at once, where the network takes as many.
        wait: How long a batch that is not full waits for another image [s].
        token: What a request must bear; None: nothing.
        upload_seconds: How long the body of a request may take to arrive [s].
    """

    most_bytes: int
    most_pixels: int
    rate: int | None
    queue: int
    batch: int
    wait: float
    token: str | None = None
    upload_seconds: float = 30.0

    @property
    def most_arriving(self) -> int:
        """Bytes that the uploads of one client may hold before they are complete; those of all: twice as many."""
        return self.queue * self.most_bytes


def read_token(file: str) -> str:
    """The token that a file holds in its only line.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    try:
        words = Path(file).expanduser().read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"token_file={file}: cannot be read ({getattr(e, 'strerror', None) or e})") from e
    if len(words) != 1 or len(words[0]) < SHORTEST_TOKEN or not (words[0].isascii() and words[0].isprintable()):
        raise UserError(
            f"token_file={file}: must hold one word of at least {SHORTEST_TOKEN} ASCII characters, as written by: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return words[0]
