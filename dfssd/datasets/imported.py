"""Reading a finished import, and finding out whether somebody has changed it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfssd.datasets.facts import FactStore
from dfssd.datasets.image_files import map_files
from dfssd.datasets.importing import Listing, below
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import DetectionSet, Item
from dfssd.errors import UserError

DAMAGE = (UserError, OSError, ValueError, LookupError, TypeError)
"""What reading a damaged import may raise, besides :class:`ChangedError`."""


class ChangedError(Exception):
    """Files of an import are gone, or no longer what was written."""


@dataclass(frozen=True)
class Written:
    """An imported image.

    Attributes:
        size: (width, height) [px]
        image: Digest of its file; None for one that stays where it is.
        label: Digest of its label file; None if it has none.
    """

    size: tuple[int, int] | None
    image: str | None
    label: str | None


def content_digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def read_imported(folder: Path, base: Path, store: FactStore | None = None) -> tuple[DetectionSet, int]:
    """A finished import of the source that now lies at ``base``, and the bits that its camera uses.

    Args:
        folder: The import.
        base: The source.
        store: Holds the files against what was written; None: they have been written just now.

    Raises:
        ChangedError: They differ. Other errors mean that the folder is no import at all.
    """
    listing = Listing.read(folder, base)
    n_classes = len(listing.names)
    if store is not None:
        _check_images(listing.items, folder, base, store)

    def read(row: list[Any]) -> Item:
        name, split, origin, (width, height), _, written = row
        source = below(origin, base)
        if name is None:
            return Item(source, None, split, source, (width, height))
        label = folder / "labels" / f"{Path(name).stem}.txt"
        if (content_digest(label.read_bytes()) if label.exists() else None) != written:
            raise ChangedError(label)
        boxes = read_label_file(label, n_classes) if written else None
        return Item(folder / "images" / name, boxes, split, source, (width, height))

    items = map_files(read, listing.items, f"Loading {listing.name}")
    return DetectionSet(listing.name, listing.names, tuple(items), listing.skipped, listing.account), listing.depth


def _check_images(rows: Sequence[list[Any]], folder: Path, base: Path, store: FactStore) -> None:
    """Raise :class:`ChangedError` if an imported image is neither its source nor what was written."""
    images = [(folder / "images" / row[0], below(row[2], base), row[4]) for row in rows if row[0] is not None]
    check_files(images, store)


def check_files(files: Iterable[tuple[Path, Path | None, str]], store: FactStore) -> None:
    """Hold imported files against what was written.

    Args:
        files: Each file, the file of the source that it may be a link to, and its digest.
        store: What is known of files.

    Raises:
        ChangedError: One is gone, or neither a link to its source nor what was written.
    """
    doubtful = []
    for file, source, written in files:
        # The name of the import covers the content of its source, so that a link to it needs no look.
        if source is None or not source.is_file() or not os.path.samefile(file, source):
            doubtful.append((file, written))
    found = store.digests([file for file, _ in doubtful], "Checking the import")
    for (file, written), now in zip(doubtful, found, strict=True):
        if now != written:
            raise ChangedError(file)
