"""The role of every file of a source: each has exactly one, and the sum is the number of files.

Images are counted by the items of a data set; this module holds the other files and the ways to say so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from dfssd.wording import counted


class Role(str, Enum):
    """What a file is in a data set."""

    LABELED = "labeled image"
    DEFECT_FREE = "defect-free image"
    UNLABELED = "unlabeled image"
    LABEL = "label"
    CLASS_LIST = "class list"
    DESCRIPTION = "data set description"
    SPLIT_LIST = "split list"
    MASK = "mask"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Accounted:
    """A file that is not a usable image, and its role.

    Attributes:
        path: The file, absolute; in a zip file ``<zip>/<member>``.
        role: Its role.
        reason: Why it is left out, without a full stop; empty for other roles.
    """

    path: Path
    role: Role
    reason: str = ""


@dataclass(frozen=True)
class Account:
    """The files of a source besides its images, and what a user should know of the reading.

    Attributes:
        files: Each file that is no image of the data set, in path order.
        outside: Number of files that never belong to a source, by kind ("hidden", "thumbnail", "run folder", ...).
        warnings: Complete sentences without a full stop, the first thing to read.
        counted: Number of all files of the source, images included; those of ``outside`` are not counted.
    """

    files: tuple[Accounted, ...] = ()
    outside: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    counted: int = 0

    @property
    def left_out(self) -> tuple[Accounted, ...]:
        """The files that are left out, with reasons."""
        return tuple(file for file in self.files if file.role is Role.LEFT_OUT)

    def roles(self) -> Counter[Role]:
        """Number of files by role, without the images of the data set."""
        return Counter(file.role for file in self.files)

    def merged(self, other: Account, images: Collection[Path] = (), added: Collection[Path] = ()) -> Account:
        """This account together with that of another source, as of ``unlabeled=``; each file counts once.

        Args:
            other: The account of the other source.
            images: The images of this source.
            added: Images of the other source that are used, so that they are not left out here.
        """
        kept = {file.path: file for file in self.files if file.path not in added}
        for file in other.files:
            if file.path not in images and kept.get(file.path, file).role is Role.LEFT_OUT:
                kept[file.path] = file
        twice = len(self.files) + len(other.files) - len(kept)
        return Account(
            tuple(kept.values()),
            Counter(self.outside) + Counter(other.outside),
            (*self.warnings, *other.warnings),
            self.counted + other.counted - twice,
        )

    def warned(self, warnings: Iterable[str]) -> Account:
        """This account with more warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))


def grouped(warnings: Sequence[str]) -> list[str]:
    """Each warning once; those of many files that differ in the file alone as one."""
    alike: dict[str, list[str]] = defaultdict(list)
    counts = Counter(warnings)
    for warning in counts:
        head, mark, tail = warning.partition(": ")
        alike[tail if mark else warning].append(head if mark else "")
    lines = []
    for warning, heads in alike.items():
        more = f" and {counted(len(heads) - 1, 'more file')}" if len(heads) > 1 else ""
        lines.append(f"{heads[0]}{more}: {warning}" if heads[0] else warning)
    return lines
