"""``labels=``: which of several label files count."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from dfssd.datasets.annotations import BrokenFile, Found, LabelFile
from dfssd.errors import UserError

FORMATS = ("yolo", "voc", "coco", "cvat", "labelme", "label-studio", "createml", "via", "csv")
"""Values of ``labels=`` that are formats."""


class LabelChoice:
    """``labels=``: the format, or the files and folders, whose labels count."""

    def __init__(self, choice: Collection[str], root: Path):
        """Sort the entries: formats, and places relative to the source or to the working folder."""
        self.formats = {entry for entry in choice if entry in FORMATS}
        self.places = []
        for entry in choice:
            if entry in FORMATS:
                continue
            options = [root / entry, Path(entry).expanduser().absolute()]
            if entry.startswith("."):  # in a shell "." and ".." are those of the working folder
                options.reverse()
            place = next((Path(os.path.abspath(option)) for option in options if option.exists()), None)
            if place is None:
                raise UserError(
                    f"labels={entry} is neither a file or folder nor one of {', '.join(FORMATS)}; correct it"
                )
            self.places.append(place)

    def refuses(self, found: Found) -> str:
        """Why a label file does not count; empty if it does."""
        if isinstance(found, (LabelFile, BrokenFile)):
            if self.formats and not (isinstance(found, LabelFile) and found.format in self.formats):
                return f"labels={','.join(sorted(self.formats))} was given"
            if self.places and not any(place in (found.file, *found.file.parents) for place in self.places):
                return "labels= names other files"
        return ""

    def check_found(self, label_files: Sequence[LabelFile]) -> None:
        """Raise :class:`UserError` if nothing is left."""
        if (self.formats or self.places) and not label_files:
            shown = ",".join([*sorted(self.formats), *map(str, self.places)])
            raise UserError(f"labels={shown}: there are no such labels in the data; correct it, or leave it out")


def choice_between(first: LabelFile, second: LabelFile) -> str:
    """The end of a message: how to choose one of two files with ``labels=``; empty if it is the same file twice."""
    if first.file == second.file:
        return ""
    if first.format != second.format:
        return f", or choose with labels={first.format} or labels={second.format}"
    if first.file.parent != second.file.parent:
        return f", or choose with labels={first.file.parent} or labels={second.file.parent}"
    return f", or choose with labels={first.file} or labels={second.file}"
