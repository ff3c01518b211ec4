"""The record of the files of a run, ``splits/files.csv``: one row per file, written and read row by row.

A record of a million images is larger than it should be in memory.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from dfssd.errors import UserError
from dfssd.files import atomic_write

FILES = "files.csv"
"""Name of the record in ``splits/``."""

IMPORT, LABEL, SOURCE, ARCHIVE, UNUSED, FOLDER = "import", "label", "source", "archive", "unused", "folder"
"""Roles of rows besides the lists of the split: settings of the import, a label file or mask that training reads, a
file of the user that the data set was made from, such a file with many members, one that has no part in the data set,
and a folder with files of the user."""

_PART, _PARTS = 64, 16
"""Rows that a thread takes at once, since most of them are quickly done, and how often that is planned ahead."""

S = TypeVar("S")
T = TypeVar("T")


class Stamp(NamedTuple):
    """What tells without reading a file that it is unchanged.

    Attributes:
        size: [bytes]
        mtime_ns: Time of the last change of its content, which programs can set back.
        ctime_ns: Time of the last change of content, name, links or permissions, which they cannot.
    """

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> Stamp:
        """The stamp of a file; links are followed."""
        stat = os.stat(path)
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


_NO_STAMP = Stamp(0, 0, 0)


class Row(NamedTuple):
    """A row of the record.

    Attributes:
        role: The list of an image, or one of the roles above.
        path: The file; an image as it is listed.
        source: Where the user has the same file, if under another name; else empty.
        stamp: Of the file; of a folder only ``mtime_ns`` counts.
        sha256: Digest of its content; empty where the content is not compared.
        labels: Digest of the labels of an image; empty if it has none.
    """

    role: str
    path: str
    source: str = ""
    stamp: Stamp = _NO_STAMP
    sha256: str = ""
    labels: str = ""

    def cells(self) -> tuple[object, ...]:
        """The row as it is written."""
        return (self.role, self.path, self.source, *self.stamp, self.sha256, self.labels)


HEADER = ("role", "path", "source", *Stamp._fields, "sha256", "labels")


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Write the record to ``folder``, whole or not at all; names of files that are not UTF-8 survive."""
    with (
        atomic_write(folder / FILES) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in rows:
            writer.writerow(row.cells())


def read_rows(folder: Path) -> Iterator[Row]:
    """The rows of the record in ``folder``, one after another.

    Raises:
        UserError: It cannot be read, or a row is damaged.
    """
    file = folder / FILES
    remedy = "restore it, or remove it to go on without a comparison"
    try:
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream)
            next(reader, None)
            for cells in reader:
                try:
                    role, path, source, size, mtime, ctime, sha256, labels = cells
                    yield Row(role, path, source, Stamp(int(size), int(mtime), int(ctime)), sha256, labels)
                except ValueError:
                    raise UserError(f"{file}:{reader.line_num}: is damaged; {remedy}") from None
    except (OSError, csv.Error) as e:
        raise UserError(f"{file} cannot be read ({e}); {remedy}") from e


def in_parallel(function: Callable[[S], T], jobs: Iterable[S]) -> Iterator[tuple[S, T]]:
    """Each of ``jobs`` with the result of ``function``, in order; a few are done at the same time, by threads."""
    jobs = iter(jobs)

    def work(part: Sequence[S]) -> list[T]:
        return [function(job) for job in part]

    with ThreadPoolExecutor(max_workers=min(16, (os.cpu_count() or 1) + 1)) as pool:
        while parts := [part for _ in range(_PARTS) if (part := list(islice(jobs, _PART)))]:
            for part, results in zip(parts, pool.map(work, parts)):
                yield from zip(part, results)
