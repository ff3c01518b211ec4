"""The files of a split as they are now, held against the record that was written with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dfssd.datasets.data_state import state_of
from dfssd.datasets.file_records import FILES, LABEL, Row, Stamp, in_parallel, read_rows, write_rows
from dfssd.datasets.splits import LISTS
from dfssd.errors import UserError
from dfssd.files import write_text


class Lost(NamedTuple):
    """A file that is not what it was when the split was written.

    Attributes:
        image: The image, as it is listed.
        part: Its list.
        file: The file: the image, or that of its labels.
        state: ``changed`` or ``vanished``.
    """

    image: str
    part: str
    file: str
    state: str

    @property
    def reason(self) -> str:
        """What happened, for the record."""
        what = "the image" if self.file == self.image else "its labels"
        return f"{what} {self.state} after the data had been prepared"


def read_list(folder: Path, part: str) -> list[Path]:
    """Images in one list of a split, such as ``val``.

    Raises:
        UserError: The list cannot be read.
    """
    file = folder / f"{part}.txt"
    try:
        return [Path(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{file} cannot be read ({e}); restore it, or start a new run") from e


def lost_files(folder: Path, parts: Collection[str], seen: MutableMapping[str, Stamp]) -> list[Lost]:
    """The files in lists of a split that changed or vanished: images, and the labels and masks that training reads.

    Args:
        folder: The folder of the split; one without a record, as of earlier versions, has lost nothing.
        parts: Names of lists.
        seen: Stamps of files that were touched and have still the same content, which need not be read again; they
            are added.

    Raises:
        UserError: A file cannot be read, or the record is damaged.
    """
    if not (folder / FILES).is_file():
        return []

    def state(job: tuple[str, str, Row]) -> tuple[str, Stamp]:
        row = job[2]
        return state_of(row.path, seen.get(row.path, row.stamp), row.sha256)

    found = []
    for (image, part, row), (now, stamp) in in_parallel(state, (job for job in _with_image(folder) if job[1] in parts)):
        if now:
            found.append(Lost(image, part, row.path, now))
        elif stamp != row.stamp:
            seen[row.path] = stamp
    return found


def leave_out(folder: Path, lost: Sequence[Lost]) -> dict[str, int]:
    """Take images out of the lists of a split, and them and their labels out of its record.

    Files of the user that they were imported from stay in the record: ``resume=`` still names those that are gone.

    Returns:
        Name of each list that got shorter -> images that it has now.

    Raises:
        UserError: A list that must not be empty would be.
    """
    images = {one.image for one in lost}
    kept = {part: [path for path in read_list(folder, part) if str(path) not in images] for part in LISTS}
    shorter = Counter(part for part in LISTS if part in {one.part for one in lost})
    if empty := [part for part in shorter if not kept[part] and part != "train_unlabeled"]:
        raise UserError(f"{folder / empty[0]}.txt: all its images changed or vanished; restore the data")
    for part in shorter:
        write_text(folder / f"{part}.txt", "".join(f"{path}\n" for path in kept[part]))
    write_rows(folder, (row for image, _, row in _with_image(folder) if image not in images))
    return {part: len(kept[part]) for part in shorter}


def _with_image(folder: Path) -> Iterator[tuple[str, str, Row]]:
    """The rows of a record, those of listed images and of their labels with the image and its list, others without."""
    image = part = ""
    for row in read_rows(folder):
        if row.role in LISTS:
            image, part = row.path, row.role
        yield (image, part, row) if row.role in {part, LABEL} else ("", "", row)
