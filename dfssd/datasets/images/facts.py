"""A cache of what has been found out about files, which cannot be stale.

Facts are kept by the digest of a file's content, so a changed, moved or copied file always has the facts of the content
that it has now. What the cache saves is the work on that content, and mostly the reading, too: the digest itself is
taken from the cache as long as the file's size, number, and times of change (of the content, and of its entry in the
file system: programs can set back the first, but not the second) are those from when it was computed. Where that leaves
a doubt, the file is read and its digest computed again, which is cheap beside decoding an image: if any of these has
changed (a hard link changes the second time), and if the digest was computed so soon after a change that another change
within the same tick of the clock would leave no trace.

The cache is one SQLite file, which several processes may use; it is not in write-ahead mode, which does not work on
network drives. It is an aid only: where it cannot be opened, read or written, everything is computed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import cv2
import PIL

from dfssd.datasets.images.files import THREADS, progress
from dfssd.datasets.images.pixels import ImageFacts, probe
from dfssd.files import file_digest
from dfssd.log import LOGGER
from dfssd.trust.limits import pixels_problem

CACHE = ".facts.sqlite"
"""Name of the cache in the folder of imported data sets."""

_APPLICATION = 0x64665301
"""``application_id`` of the database; its last byte is the version of the tables."""

_TABLES = (
    "CREATE TABLE files (path BLOB PRIMARY KEY, state TEXT, doubtful INTEGER, digest TEXT) WITHOUT ROWID",
    "CREATE TABLE facts (kind TEXT, digest TEXT, value TEXT, PRIMARY KEY (kind, digest)) WITHOUT ROWID",
)

_BATCH = 500
"""Files between two commits, so that what an interrupted run has found out is kept; SQLite takes at most 999 values."""

_CHUNK = 25
"""Files that a thread looks at in one go, since a look is shorter than a change of the thread."""

_DOUBT = 2_000_000_000
"""[ns] A file that was changed less than that before its digest was computed may have been changed again in the same
tick of its file system's clock (2 s on FAT)."""

_CHANGES_ARE_TIMED = os.name != "nt"
"""Windows tells when a file was created where other systems tell when its entry was changed."""

_PIXELS = f"pixels/2 opencv {cv2.__version__} pillow {PIL.__version__}"
"""Another decoder may read other pixels."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Seen:
    """A file as it was found.

    Attributes:
        state: What changes when the file does.
        digest: SHA-256 of its content, in hex.
        doubtful: Whether it was changed so shortly before that its state proves nothing.
        known: Whether the cache says all this.
    """

    state: str
    digest: str
    doubtful: bool
    known: bool


class FactStore:
    """Facts about files, kept between runs."""

    def __init__(self, cache: Path | None):
        """Use the cache at this path, which is created when it is first needed; None: keep nothing."""
        self._cache = cache

    def map(
        self,
        kind: str,
        function: Callable[[Path], T],
        files: Sequence[Path],
        what: str,
        encode: Callable[[T], str | None],
        decode: Callable[[str], T],
    ) -> list[T]:
        """Apply ``function`` to each file whose content it has not been applied to, in a pool of threads.

        Args:
            kind: Names the function, its settings and its version: whatever changes its result.
            function: What to find out; must depend on nothing but the content of the file.
            files: The files.
            what: Title of the progress bar.
            encode: Turns a result into text; None for a result that is not to be kept, such as a failure.
            decode: Turns the text back; if it raises, the function is applied again.

        Returns:
            The results in the order of ``files``.
        """
        return list(progress(self._stream(kind, function, files, encode, decode), what, len(files)))

    def digests(self, files: Sequence[Path], what: str) -> list[str | None]:
        """SHA-256 of the content of each file in hex, None where a file cannot be read; with a progress bar."""

        def stream() -> Iterator[str | None]:
            with _Database(self._cache) as database, ThreadPoolExecutor(THREADS) as pool:
                for batch, found in _identified(files, database, pool):
                    database.record(batch, found, [])
                    yield from (seen.digest if seen else None for seen in found)

        return list(progress(stream(), what, len(files)))

    def _stream(
        self,
        kind: str,
        function: Callable[[Path], T],
        files: Sequence[Path],
        encode: Callable[[T], str | None],
        decode: Callable[[str], T],
    ) -> Iterator[T]:
        def apply(file: Path, seen: _Seen | None) -> tuple[T, str | None]:
            """The result for a file, and its text if it is to be kept."""
            value = function(file)
            return value, encode(value) if seen and _unchanged(file, seen) else None

        with _Database(self._cache) as database, ThreadPoolExecutor(THREADS) as pool:
            for batch, found in _identified(files, database, pool):
                texts = database.values(kind, {seen.digest for seen in found if seen})
                known = [_decoded(texts.get(seen.digest) if seen else None, decode) for seen in found]
                missing = [(file, seen) for file, seen, old in zip(batch, found, known) if not old]
                results = pool.map(lambda job: apply(*job), missing)
                new: list[tuple[str, str, str]] = []
                try:
                    for seen, old in zip(found, known, strict=True):
                        if old:
                            yield old[0]
                            continue
                        value, text = next(results)
                        if seen and text is not None:
                            new.append((kind, seen.digest, text))
                        yield value
                finally:  # interrupted, too
                    database.record(batch, found, new)


def store_in(data_dir: Path) -> FactStore:
    """The store of a folder of imported data sets."""
    return FactStore(data_dir / CACHE)


def probe_files(store: FactStore, files: Sequence[Path]) -> list[ImageFacts | str]:
    """The facts of image files, or the reasons why they cannot be used; with a progress bar."""

    def encode(facts: ImageFacts | str) -> str | None:
        return None if isinstance(facts, str) else json.dumps(astuple(facts))  # a reason may be a full memory

    found = store.map(_PIXELS, probe, files, "Checking images", encode, lambda text: ImageFacts(*json.loads(text)))
    # what was found before may be larger than a run allows now
    return [own if isinstance(own, str) else pixels_problem(own.width * own.height) or own for own in found]


def _decoded(text: str | None, decode: Callable[[str], T]) -> tuple[T] | None:
    """The result that a text of the cache stands for, None if there is none."""
    if text is not None:
        with contextlib.suppress(Exception):  # written by another version, or damaged
            return (decode(text),)
    return None


def _identified(
    files: Sequence[Path], database: _Database, pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Path], list[_Seen | None]]]:
    """The files in batches, and what they are; None where a file cannot be read."""
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        known = database.files(batch)
        jobs = [(batch[i : i + _CHUNK], known[i : i + _CHUNK]) for i in range(0, len(batch), _CHUNK)]
        yield batch, list(chain.from_iterable(pool.map(lambda job: [*map(_identify, *job)], jobs)))


def _identify(file: Path, known: _Seen | None) -> _Seen | None:
    """What a file is, with the digest from the cache if that leaves no doubt."""
    try:
        state, changed = _state(file)
        if known and known.state == state and not known.doubtful and _CHANGES_ARE_TIMED:
            return known
        doubtful = changed > time.time_ns() - _DOUBT
        digest = file_digest(file)
        return _Seen(state, digest, doubtful, False) if _state(file)[0] == state else None
    except OSError:
        return None


def _unchanged(file: Path, seen: _Seen) -> bool:
    """Whether a file is still as it was seen."""
    try:
        if _state(file)[0] != seen.state:
            return False
        return (not seen.doubtful and _CHANGES_ARE_TIMED) or file_digest(file) == seen.digest
    except OSError:
        return False


def _state(file: Path) -> tuple[str, int]:
    """What changes when a file does, and the time of its last change [ns]."""
    stat = file.stat()
    state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
    return state, max(stat.st_mtime_ns, stat.st_ctime_ns)


def _key(file: Path) -> bytes:
    return os.fsencode(os.path.abspath(file))


class _Database:
    """The SQLite file; knows nothing and keeps nothing from its first error on."""

    def __init__(self, path: Path | None):
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> _Database:
        if self._path is not None:
            with self._errors():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(self._path, timeout=20, isolation_level=None)
                self._prepare(self._connection)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def files(self, files: Sequence[Path]) -> list[_Seen | None]:
        """What is known of each file."""
        keys = [_key(file) for file in files]
        rows = self._rows("SELECT path, state, digest, doubtful FROM files WHERE path IN", keys)
        known = {row[0]: _Seen(row[1], row[2], bool(row[3]), True) for row in rows}
        return [known.get(key) for key in keys]

    def values(self, kind: str, digests: Iterable[str]) -> dict[str, str]:
        """The texts that are known, by digest."""
        return dict(self._rows("SELECT digest, value FROM facts WHERE kind = ? AND digest IN", [*digests], kind))

    def record(
        self, files: Sequence[Path], found: Sequence[_Seen | None], facts: Sequence[tuple[str, str, str]]
    ) -> None:
        """Keep the digests of files, where they are new, and facts (kind, digest, text)."""
        rows = [
            (_key(file), seen.state, seen.doubtful, seen.digest)
            for file, seen in zip(files, found, strict=True)
            if seen and not seen.known
        ]
        if self._connection is None or not (rows or facts):
            return
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
            self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", facts)
            self._connection.execute("COMMIT")

    def _rows(self, query: str, among: Sequence[object], *before: object) -> list[tuple[Any, ...]]:
        if self._connection is not None and among:
            with self._errors():
                marks = ", ".join("?" * len(among))
                return self._connection.execute(f"{query} ({marks})", (*before, *among)).fetchall()
        return []

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables of a new cache; leave a database of another program alone."""

        def application() -> int:
            return int(connection.execute("PRAGMA application_id").fetchone()[0])

        if application() != _APPLICATION:
            connection.execute("BEGIN IMMEDIATE")  # another process may do the same right now
            if application() != _APPLICATION:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("it belongs to another program or version")
                for table in _TABLES:
                    connection.execute(table)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as e:
            self._close()
            if not isinstance(e, (OSError, sqlite3.OperationalError)):  # not a full disk, a lock or a read-only folder
                LOGGER.warning(f"{self._path} is not used, {e}: delete it, and the next run is faster")

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
