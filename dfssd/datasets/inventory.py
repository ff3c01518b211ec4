"""The files of a source: walked once, in an order that does not depend on the file system.

Links to folders are followed, each real folder once on a way down, so a link to a parent folder ends. Files that never
belong to a data set are not listed, only counted: hidden ones, resource forks of macOS, thumbnails of a NAS or of
Windows, trash folders, caches of Ultralytics, and our own folders (imported data sets, run folders).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dfssd.errors import UserError

OUTPUTS: Mapping[str, Collection[str]] = {
    "dataset.json": ("images",),
    "run.yaml": ("results.json",),
    "protocol.yaml": ("results.json", "incremental.json", "data"),
    "args.yaml": ("weights", "results.csv"),
    "opt.yaml": ("weights", "hyp.yaml"),
    "data_report.json": ("data.png",),
}
"""Files that mark the folder of an imported data set, of a run, of a protocol, of a training by Ultralytics (or YOLOv5
and v7), and of a report on data, if at least one of the other names lies beside them. Their plots and converted copies
are no data of the user."""

_TASKS = frozenset({"detect", "segment", "obb", "pose", "classify"})
"""Folders in the folder ``runs`` of Ultralytics: plots, and predictions, which must not be taken for labels."""

_NAS = re.compile(r"@eaDir|#recycle|#snapshot|@Recycle|@Recently-Snapshot|\.@__thumb", re.IGNORECASE)
_TRASH = re.compile(r"\$RECYCLE\.BIN|System Volume Information|lost\+found|__MACOSX|__pycache__", re.IGNORECASE)
_THUMBNAIL = re.compile(r"Thumbs\.db|ehthumbs\.db|desktop\.ini|SYNOPHOTO_THUMB.*|SYNOINDEX_MEDIA_INFO", re.IGNORECASE)
_CACHE = re.compile(r".*\.cache(\.npy)?", re.IGNORECASE)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        path: Absolute path, links not resolved.
        size: [bytes]
        mtime_ns: Time of its last change.
    """

    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Inventory:
    """All files of a source.

    Attributes:
        root: Its folder.
        files: In path order.
        outside: Number of files that never belong to a source, by kind.
    """

    root: Path
    files: tuple[SourceFile, ...]
    outside: Mapping[str, int] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """The paths of all files."""
        return [file.path for file in self.files]


def take_inventory(root: Path, exclude: Collection[Path] = ()) -> Inventory:
    """List the files below ``root``.

    Args:
        root: The folder.
        exclude: Folders that never belong to a source: where data sets are imported to, where runs lie. One that is
            ``root`` itself or above it is ignored: the user has named it.

    Raises:
        UserError: ``root`` or a folder in it cannot be listed.
    """
    root = Path(os.path.abspath(root))
    top = os.path.realpath(root)
    foreign = {os.path.realpath(folder) for folder in exclude}
    foreign = {folder for folder in foreign if folder != top and not top.startswith(folder.rstrip(os.sep) + os.sep)}
    outside: Counter[str] = Counter()
    files = sorted(_walk(root, (top,), foreign, outside), key=lambda file: file.path.parts)
    return Inventory(root, tuple(files), dict(outside))


def list_folder(folder: Path) -> list[Path]:
    """The files directly in a folder that may belong to a source, in name order; none if it does not exist."""
    try:
        with os.scandir(folder) as listing:
            names = [entry.name for entry in listing if not _kind_outside(entry.name) and entry.is_file()]
    except FileNotFoundError:
        return []
    except OSError as e:
        raise UserError(f"{folder}: cannot be listed ({e.strerror}); correct its permissions or the path") from e
    return [folder / name for name in sorted(names)]


def _walk(folder: Path, above: tuple[str, ...], foreign: set[str], outside: Counter[str]) -> Iterator[SourceFile]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as e:
        raise UserError(f"{folder}: cannot be listed ({e.strerror}); correct its permissions or the path") from e
    if len(above) > 1 and (_is_output(entries) or _is_of_ultralytics(folder)):
        outside["of earlier runs and imports"] += _count(folder)
        return
    for entry in entries:
        path = folder / entry.name
        kind = _kind_outside(entry.name)
        try:
            if entry.is_dir():
                real = os.path.realpath(path)
                if real in foreign:
                    outside["of earlier runs and imports"] += _count(path)
                elif kind:
                    outside[kind] += _count(path)
                elif real not in above and not above[0].startswith(real.rstrip(os.sep) + os.sep):  # else a circle
                    yield from _walk(path, (*above, real), foreign, outside)
            elif kind:
                outside[kind] += 1
            elif entry.is_file():
                stat = entry.stat()
                yield SourceFile(path, stat.st_size, stat.st_mtime_ns)
            elif entry.is_symlink():
                outside["broken links"] += 1
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror}); restore it, or remove it from the data") from e


def _kind_outside(name: str) -> str:
    """Why a file or folder of that name never belongs to a source; empty if it may."""
    if _NAS.fullmatch(name) or _THUMBNAIL.fullmatch(name):
        return "thumbnails"
    if name.startswith("."):
        return "hidden"
    if _TRASH.fullmatch(name):
        return "system folders"
    return "caches" if _CACHE.fullmatch(name) else ""


def _is_output(entries: Collection[os.DirEntry[str]]) -> bool:
    """Whether a folder was made by a training or an import."""
    names = {entry.name for entry in entries}
    return any(mark in names and not names.isdisjoint(beside) for mark, beside in OUTPUTS.items())


def _is_of_ultralytics(folder: Path) -> bool:
    """Whether it is a folder such as ``runs/detect``, to which Ultralytics writes if nothing else is said."""
    return folder.name in _TASKS and folder.parent.name == "runs"


def _count(folder: Path) -> int:
    """Number of files below a folder; links are not followed."""
    return sum(len(files) for _, _, files in os.walk(folder))
