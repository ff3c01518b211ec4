"""The list of the images: written once, read in parts, so that nobody holds the names of a million files."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfssd.datasets.images.pixels import SUFFIXES, UNREAD_SUFFIXES
from dfssd.errors import UserError
from dfssd.files import atomic_write
from dfssd.log import LOGGER
from dfssd.wording import counted

_KNOWN = SUFFIXES | UNREAD_SUFFIXES
"""Files of kinds that are not read are listed, too: the labels say so."""


@dataclass(frozen=True)
class Part:
    """Consecutive images of a list.

    Attributes:
        listing: The list: a name in JSON in each line.
        number: Which part it is, from 0.
        offset: Where its first line begins [bytes].
        count: Number of its images.
    """

    listing: Path
    number: int
    offset: int
    count: int

    def names(self) -> list[str]:
        """The images, as the list names them."""
        with open(self.listing, "rb") as lines:
            lines.seek(self.offset)
            return [json.loads(next(lines)) for _ in range(self.count)]


def write_listing(source: Path, target: Path, key: str = "images") -> int:
    """List the images of a source in a file, whole or not at all.

    Args:
        source: A folder, whose images, and those of the folders below it, are listed in the order of their names; or a
            ``.txt`` file with a path in each line, relative to its own folder, which is kept as it is.
        target: The list.
        key: The argument that named the source, for messages.

    Returns:
        Number of images.

    Raises:
        UserError: The source does not exist, or holds no image.
    """
    if not source.exists():
        raise UserError(f"{key}={source}: does not exist; give a folder, or a .txt file with a path in each line")
    names = _of_folder(source, key) if source.is_dir() else _of_text(source, key)
    count = unnamed = 0
    with atomic_write(target) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as lines:
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                unnamed += 1
                continue
            lines.write(json.dumps(name) + "\n")
            count += 1
        if not count:
            raise UserError(f"{key}={source}: no image there ({', '.join(sorted(SUFFIXES))})")
    if unnamed:
        LOGGER.warning(f"{counted(unnamed, 'image')} with names that are no UTF-8 left out: rename them")
    return count


def _of_folder(
    folder: Path, key: str, above: str = "", inside: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[str]:
    """The images below a folder, one folder after the other, so that only the names of one are held.

    Linked folders are followed, but not into one that they lie in. Names that begin with a dot are left out.
    """
    try:
        told = folder.stat()
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")
    except OSError as e:
        raise UserError(f"{key}: {folder} cannot be read ({e.strerror})") from e
    here = told.st_dev, told.st_ino
    if here in inside:
        LOGGER.warning(f"{folder} leads back to a folder that it lies in: left out")
        return
    for name, is_folder in found:
        if is_folder:
            yield from _of_folder(folder / name, key, f"{above}{name}/", inside | {here})
        elif os.path.splitext(name)[1].lower() in _KNOWN:
            yield above + name


def _of_text(file: Path, key: str) -> Iterator[str]:
    if file.suffix.lower() != ".txt":
        raise UserError(f"{key}={file}: give a folder, or a .txt file with a path in each line")
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for line in lines:
                if "\0" in line:
                    raise UserError(f"{key}={file}: is no text: it holds a NUL")
                if line.strip():
                    yield line.strip()
    except OSError as e:
        raise UserError(f"{key}={file}: cannot be read ({e.strerror})") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{key}={file}: is no text in UTF-8 ({e.reason} at byte {e.start})") from e


def root_of(source: Path) -> Path:
    """The folder that the names in the list of a source start from."""
    return source if source.is_dir() else source.parent


def parts_of(listing: Path, size: int) -> list[Part]:
    """A list in parts of ``size`` images, the last one smaller."""
    parts: list[Part] = []
    offset = count = 0
    with open(listing, "rb") as lines:
        start = 0
        for line in lines:
            offset, count = offset + len(line), count + 1
            if count == size:
                parts.append(Part(listing, len(parts), start, count))
                start, count = offset, 0
    return [*parts, Part(listing, len(parts), start, count)] if count else parts


def write_sample(listing: Path, total: int, size: int, seed: int, target: Path) -> int:
    """List at most ``size`` images, drawn at random from a list of ``total``, in its order; returns how many."""
    chosen = set(random.Random(seed).sample(range(total), min(size, total)))
    with atomic_write(target) as temporary, open(listing, "rb") as lines, open(temporary, "wb") as drawn:
        drawn.writelines(line for number, line in enumerate(lines) if number in chosen)
    return len(chosen)


def images_of(part: Part, root: Path) -> Sequence[Path]:
    """The files of a part."""
    return [root / name for name in part.names()]
