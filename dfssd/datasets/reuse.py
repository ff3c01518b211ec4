"""Reuse of a finished import, if nobody has changed it; of boxes whole, of masks the parts that both share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dfssd.datasets.images.facts import FactStore
from dfssd.datasets.images.files import map_files
from dfssd.datasets.importing import LISTING, Listing, below, is_converted
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import DetectionSet, Item
from dfssd.errors import UserError

T = TypeVar("T")


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


def reused_or_made(
    target: Path, convert: Callable[[], None], read: Callable[[FactStore | None], T], store: FactStore
) -> T:
    """The import in ``target``, made by ``convert`` if there is none, or if somebody has changed what is in it.

    Args:
        target: Its folder.
        convert: Makes it.
        read: Reads it; given a store, it holds the files against what was written and raises :class:`ChangedError`.
        store: What is known of files.
    """
    if is_converted(target):
        try:
            return read(store)
        except (ChangedError, UserError, OSError, ValueError, LookupError, TypeError):
            (target / LISTING).unlink(missing_ok=True)
    convert()
    return read(None)


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
    found = DetectionSet(listing.name, listing.names, tuple(items), listing.skipped, listing.account, listing.depth)
    return found, listing.depth


def _check_images(rows: Sequence[list[Any]], folder: Path, base: Path, store: FactStore) -> None:
    """Raise :class:`ChangedError` if an imported image is neither its source nor what was written."""
    written = (
        (folder / "images" / name, digest, below(origin, base))
        for name, _, origin, _, digest, _ in rows
        if name is not None
    )
    check_written(written, store)


def check_written(files: Iterable[tuple[Path, str, Path | None]], store: FactStore) -> None:
    """Hold imported files against what was written.

    Args:
        files: Each file with the digest of its content, and the file of the user that it may be a link to. The name of
            an import covers the content of its source, so that such a link needs no look.
        store: What is known of files.

    Raises:
        ChangedError: One differs, or is gone.
    """
    doubtful = [
        (file, digest)
        for file, digest, source in files
        if source is None or not (source.is_file() and os.path.samefile(file, source))
    ]
    found = store.digests([file for file, _ in doubtful], "Checking the import")
    for (file, digest), now in zip(doubtful, found, strict=True):
        if now != digest:
            raise ChangedError(file)
