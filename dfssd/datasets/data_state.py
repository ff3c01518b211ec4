"""The files that a run was started with: their sizes, times and digests, kept beside its split in ``files.csv``.

Nothing may change behind a run. A resumed run compares this record with the files that its training reads (images and
labels as imported) and with those of the user that they were made from; a new run on the split of an earlier one
compares its images and labels. Sizes and times come first, and a file is read again only where they differ, so one that
was merely touched or copied passes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from dfssd.datasets.account import Accounted, Role
from dfssd.datasets.file_records import (
    ARCHIVE,
    FILES,
    FOLDER,
    IMPORT,
    LABEL,
    SOURCE,
    UNUSED,
    Row,
    Stamp,
    in_parallel,
    read_rows,
    write_rows,
)
from dfssd.datasets.images.files import progress
from dfssd.datasets.label_files import format_labels
from dfssd.datasets.records import Item, LabeledImage, LabeledSet, MaskItem
from dfssd.datasets.splits import LISTS, Split
from dfssd.errors import UserError
from dfssd.files import file_digest
from dfssd.log import LOGGER
from dfssd.wording import counted

NAMED = 3
"""Files that a message names."""


@dataclass
class Named:
    """A number of files, the first few of which are named in a message."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a file."""
        self.count += 1
        if self.count <= NAMED:
            self.first.append(name)

    def amount(self, what: str) -> str:
        """``1 file``, ``12 files``."""
        return counted(self.count, what)

    def __str__(self) -> str:
        """The names, and how many more there are."""
        return ", ".join(self.first) + (f" and {self.count - NAMED:,} more" if self.count > NAMED else "")


def write_state(folder: Path, split: Split, dataset: LabeledSet[LabeledImage], *, imported: str = "") -> None:
    """Write the record of all files of a data set to ``folder``, whole or not at all.

    Args:
        folder: The ``splits/`` of a run.
        split: Its split.
        dataset: The data set, just read.
        imported: Settings of the import that change pixels or boxes, as text: data that was imported with others
            cannot be compared.

    Raises:
        UserError: A file cannot be read, or the record cannot be written.
    """
    write_rows(folder, chain((Row(IMPORT, imported),), _rows(split, dataset)))


def check_state(folder: Path, what: str) -> None:
    """Check that the files of a run are those that it was started with; files added beside them are told.

    Args:
        folder: The ``splits/`` of the run; one without a record, as of earlier versions, passes.
        what: Beginning of the message, such as ``resume=runs/x``.

    Raises:
        UserError: Files changed or vanished; the message names the first ones. Or the record is damaged.
    """
    if not (folder / FILES).is_file():
        return
    changed, vanished = Named(), Named()
    grown, lost = set(), []
    for row, (state, path) in in_parallel(_compare, read_rows(folder)):
        if row.role == FOLDER:
            grown |= {path} if state == "changed" else set()
        elif state == "changed":
            changed.add(path)
        elif state:
            vanished.add(path)
            lost += [row] if vanished.count <= NAMED else []
    added = _added(folder, grown) if grown else []
    problems = []
    if changed.count:
        problems.append(f"{changed.amount('file')} changed since the run was started: {changed}")
    if vanished.count:
        found = [_found_again(path, row, added) for path, row in zip(vanished.first, lost)]
        vanished.first = [f"{path} (now {now})" if now else path for path, now in zip(vanished.first, found)]
        problems.append(f"{vanished.amount('file')} vanished since the run was started: {vanished}")
    if problems:
        raise UserError(*(f"{what}: {problem}; restore the data, or start a new run" for problem in problems))
    if added:
        new = Named(len(added), added[:NAMED])
        LOGGER.warning(f"{new.amount('file')} added to the data since the run was started, and not used by it: {new}")


def check_listed(folder: Path, what: str, find: Callable[[str], LabeledImage | None], *, imported: str = "") -> None:
    """Check that the images and labels of a split are those that it was written for.

    Args:
        folder: The folder of the lists; one without a record, as of earlier versions, passes.
        what: Beginning of the message, such as ``split=runs/x/splits``.
        find: From a recorded path to the image in the data set; None for one that is not to be compared.
        imported: As of :func:`write_state`.

    Raises:
        UserError: Images or labels changed; the message names the first ones. Or the record is damaged.
    """
    if not (folder / FILES).is_file():
        return

    def differs(row: Row) -> tuple[str, str]:
        """What of a listed image differs ("image", "labels" or ""), and the image as the user knows it."""
        item = find(row.path) if row.role in LISTS else None
        if item is None:
            return "", ""
        name = str(item.source or item.image)
        if state_of(str(item.image), row.stamp, row.sha256)[0]:
            return "image", name
        return ("labels" if row.labels not in {"", _labels_digest(item)} else ""), name

    images, labels = Named(), Named()
    for row, (part, name) in in_parallel(differs, read_rows(folder)):
        if row.role == IMPORT and row.path != imported:
            LOGGER.info(
                f"{what}: written for data imported with {row.path or 'default settings'}, here it is "
                f"{imported or 'default settings'}; images and labels are not compared"
            )
            return
        if part:
            (images if part == "image" else labels).add(name)
    problems = []
    if images.count:
        problems.append(f"{images.amount('image')} changed since the split was written: {images}")
    if labels.count:
        problems.append(f"the labels of {labels.amount('image')} changed since the split was written: {labels}")
    if problems:
        raise UserError(*(f"{what}: {text}; restore them, or leave split= out to draw a new one" for text in problems))


def label_file(item: LabeledImage) -> Path | None:
    """The file from which training reads the labels of an image: its mask, or its label file; None if it has none.

    Ultralytics finds a label file by the last folder ``images`` in the path, which it replaces by ``labels``.
    """
    if isinstance(item, MaskItem):
        return item.mask
    before, folder, after = str(item.image).rpartition(f"{os.sep}images{os.sep}")
    file = Path(f"{before}{os.sep}labels{os.sep}{after}").with_suffix(".txt")
    return file if folder and file.is_file() else None


def _unreadable(path: str | Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror}); restore it, or correct its permissions")


def _labels_digest(item: LabeledImage) -> str:
    """Digest of the labels of an image: of its boxes as training reads them, or of its mask; empty without labels."""
    if isinstance(item, MaskItem) and item.mask:
        return _file_row((LABEL, str(item.mask))).sha256
    if isinstance(item, Item) and item.boxes is not None:
        return hashlib.sha256(format_labels(item.boxes).encode()).hexdigest()
    return ""


def _rows(split: Split, dataset: LabeledSet[LabeledImage]) -> Iterator[Row]:
    """The rows of all files: listed images with their labels and sources, other files of the source, its folders."""
    items = {item.image: item for item in dataset.items}
    listed = [(role, path) for role in LISTS for path in getattr(split, role)]
    sources = _Sources()
    jobs = ((role, items.pop(path)) for role, path in listed)
    for (_, item), rows in progress(in_parallel(_image_rows, jobs), "Recording images", len(listed)):
        yield from rows
        # their own rows hold the sources of all images but those from an archive
        yield from (_file_row(job) for job in sources.files(SOURCE, item.source or item.image) if job[0] == ARCHIVE)
    others = chain(
        (job for item in items.values() for job in sources.files(UNUSED, item.source or item.image)),
        (job for file in dataset.account.files for job in sources.of_account(file)),
    )
    yield from (row for _, row in in_parallel(_file_row, others))
    for folder in sorted(sources.folders):
        if folder.is_dir():
            yield Row(FOLDER, str(folder), "", Stamp(0, folder.stat().st_mtime_ns, 0))


def _image_rows(job: tuple[str, LabeledImage]) -> list[Row]:
    """The row of an image in a list, and those of its label file and of its source if these are files of their own."""
    role, item = job
    image, source, label = str(item.image), str(item.source or ""), label_file(item)
    rows = [_file_row((role, image))._replace(labels=_labels_digest(item))]
    if source and os.path.exists(source):
        if os.path.samefile(image, source):
            rows[0] = rows[0]._replace(source=source)
        else:
            rows.append(_file_row((SOURCE, source)))
    return rows if label is None else [*rows, _file_row((LABEL, str(label)))]


def _file_row(job: tuple[str, str]) -> Row:
    """The row of a file as it is now."""
    role, path = job
    if role == UNUSED:
        return Row(role, path)
    try:
        return Row(role, path, "", Stamp.of(path), file_digest(path))
    except OSError as e:
        raise _unreadable(path, e) from e


class _Sources:
    """The files of the user with their roles; an archive is one file, whatever was read from it.

    Attributes:
        folders: Where images and labels lie: files that are added there are noticed.
    """

    def __init__(self) -> None:
        self.folders: set[Path] = set()
        self._archives: set[Path] = set()

    def files(self, role: str, path: Path, *, data: bool = True) -> Iterator[tuple[str, str]]:
        """The file with its role, or the archive that it is a member of, unless that was met before.

        Args:
            role: Its role, if it is in no archive.
            path: The file; in an archive ``<archive>/<member>``.
            data: Whether it is an image or holds labels.
        """
        if not self._archives.isdisjoint(path.parents):
            return
        archive = None if path.exists() else next((parent for parent in path.parents if parent.is_file()), None)
        if archive is not None:
            self._archives.add(archive)
            role, path = ARCHIVE, archive
        elif data:
            self.folders.add(path.parent)
        yield role, str(path)

    def of_account(self, file: Accounted) -> Iterator[tuple[str, str]]:
        """A file that is no image, likewise."""
        role = UNUSED if file.role is Role.LEFT_OUT else SOURCE
        return self.files(role, file.path, data=file.role in {Role.LABEL, Role.MASK})


def _compare(row: Row) -> tuple[str, str]:
    """Whether a file is as it was ("" or "changed" or "vanished"), and its path as the user knows it."""
    if row.role == FOLDER:
        same = os.path.isdir(row.path) and os.stat(row.path).st_mtime_ns == row.stamp.mtime_ns
        return ("" if same else "changed"), row.path
    stamp = row.stamp
    for path in (row.source, row.path) if row.sha256 else ():
        state, stamp = state_of(path, stamp, row.sha256) if path else ("", stamp)
        if state:
            return state, path
    return "", row.path


def state_of(path: str, stamp: Stamp, sha256: str) -> tuple[str, Stamp]:
    """Whether a file is as it was (empty, ``changed``, or ``vanished``), and the stamp by which this is known.

    Args:
        path: The file.
        stamp: Its stamp when it was recorded.
        sha256: The digest of its content then.

    Raises:
        UserError: It cannot be read.
    """
    try:
        now = Stamp.of(path)
        if now == stamp or (now.size == stamp.size and file_digest(path) == sha256):
            return "", now
    except (FileNotFoundError, NotADirectoryError):
        return "vanished", stamp
    except OSError as e:
        raise _unreadable(path, e) from e
    return "changed", stamp


def _added(folder: Path, grown: Iterable[str]) -> list[str]:
    """Files of the kinds of the source that lie in folders which changed, and are not in the record in ``folder``."""
    known: dict[str, set[str]] = {path: set() for path in grown}
    suffixes = set()
    for row in read_rows(folder):
        for path in (row.path, row.source):
            parent, name = os.path.split(path)
            if row.role not in {FOLDER, IMPORT, UNUSED}:
                suffixes.add(os.path.splitext(name)[1].lower())
            if parent in known:
                known[parent].add(name)
    added = []
    for parent, names in sorted(known.items()):
        if os.path.isdir(parent):
            with os.scandir(parent) as entries:
                new = {e.name for e in entries if e.name not in names and not e.name.startswith(".") and e.is_file()}
            added += [os.path.join(parent, name) for name in sorted(new)]
    return [path for path in added if os.path.splitext(path)[1].lower() in suffixes - {""}]


def _found_again(path: str, row: Row, added: Iterable[str]) -> str | None:
    """Where a file that vanished is now: among ``added`` the one of its name, else the one of its content."""
    same_name = (new for new in added if os.path.basename(new) == os.path.basename(path))
    same_content = (new for new in added if not state_of(new, row.stamp, row.sha256)[0])
    return next(same_name, None) or next(same_content, None)
