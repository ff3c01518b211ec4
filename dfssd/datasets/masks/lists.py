"""Text files beside images and masks: lists of class names in id order, and lists of the images of a part."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from dfssd.datasets.class_names import NameList, agree
from dfssd.datasets.records import check_names
from dfssd.datasets.sources import split_named
from dfssd.errors import UserError
from dfssd.wording import counted

_CLASS_LIST = re.compile(r"_?class(es|_?names)?|label(s|_?names|map)?|names|.*\.names", re.IGNORECASE)
_BACKGROUND = re.compile(
    r"_*(back_?ground|bg|normal|good|ok|none|clean|void|(defect|no)[-_ ]?(free|defects?|anomaly))_*", re.IGNORECASE
)
_LISTS = ("imagesets", "segmentation")
"""Folders of the lists of Pascal VOC."""

_WHOLE = re.compile(r"trainval|default|all", re.IGNORECASE)
"""Lists that name no part of their own: both others together (VOC), or everything (CVAT)."""


def read_class_names(file: Path) -> NameList | None:
    """Read a list of class names: ``classes.txt``, ``labelmap.txt`` of CVAT, ``_classes.csv`` of Roboflow.

    Returns:
        The names; None if the file is called or built otherwise.

    Raises:
        UserError: It is not UTF-8, ids have gaps, or a name is empty or occurs twice.
    """
    suffix = file.suffix.lower()
    stem = file.name if suffix == ".names" else file.stem
    if suffix not in {".txt", ".csv", ".names"} or not _CLASS_LIST.fullmatch(stem):
        return None
    lines = [line.strip() for line in read_lines(file, "class names") if line.strip() and not line.startswith("#")]
    if suffix == ".csv":
        table = _table_of_classes(lines)
        if table is None:
            return None
        lines = table
    elif lines and all(line.count(":") == 3 for line in lines):  # name:color:parts:actions
        lines = [line.partition(":")[0] for line in lines]
    if lines and lines[0] == "__ignore__":  # id -1 of LabelMe
        lines = lines[1:]
    return NameList(check_names(_in_id_order(lines, file), file), file)


def _table_of_classes(lines: Sequence[str]) -> list[str] | None:
    """The rows of Roboflow's table as "id name"; None if it is another table."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except csv.Error:
        return None
    if not rows or [cell.casefold() for cell in rows[0]] != ["pixel value", "class"]:
        return None
    return [f"{row[0]} {row[1]}" for row in rows[1:] if len(row) > 1]


def _in_id_order(lines: list[str], file: Path) -> list[str]:
    """The names without their ids, if all lines have one.

    Raises:
        UserError: There are gaps between the ids.
    """
    numbered = [re.fullmatch(r"(\d{1,3})\s*[:,;\s]\s*(\S.*)", line) for line in lines]
    pairs = sorted((int(match[1]), match[2]) for match in numbered if match)
    if not lines or len(pairs) < len(lines):
        return lines
    if [number for number, _ in pairs] != list(range(len(pairs))):
        raise UserError(f"{file}: the ids of the classes must be 0 to {len(pairs) - 1} without gaps; correct them")
    return [name for _, name in pairs]


def agreed_names(lists: Sequence[NameList]) -> tuple[str, ...] | None:
    """The longest of several lists, of which each is the beginning of another one; None if there is none.

    Raises:
        UserError: Two lists give an id two names, or the first name is not that of the background.
    """
    found = agree(lists)
    if found is None:
        return None
    if not _BACKGROUND.fullmatch(found.names[0]):
        raise UserError(
            f"{found.origin}: id 0 is the background of masks, and '{found.names[0]}' does not look like it; "
            "put the background first, or pass names=[background,...]"
        )
    return found.names


def read_lines(file: Path, what: str) -> list[str]:
    """The lines of a text file, UTF-8 with or without a byte-order mark.

    Raises:
        UserError: It cannot be read, or has another encoding.
    """
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise UserError(f"{file}: the {what} are not UTF-8; save the file as UTF-8") from e
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror}); restore it, or remove it") from e


@dataclass
class GivenParts:
    """What lists of images say.

    Attributes:
        root: Folder of the source.
        part: The part of each listed image.
        lists: The list that names each image.
        used: The lists.
        complete: Whether there are lists of training images, so that an image in none of the lists is not meant.
        warnings: What a user should know.
    """

    root: Path
    part: dict[Path, str] = field(default_factory=dict)
    lists: dict[Path, Path] = field(default_factory=dict)
    used: list[Path] = field(default_factory=list)
    complete: bool = False
    warnings: list[str] = field(default_factory=list)

    def put(self, part: str, images: Iterable[Path], file: Path) -> None:
        """Put the images of a list into a part.

        Raises:
            UserError: One is in another part already.
        """
        for image in images:
            if self.part.setdefault(image, part) != part:
                raise UserError(f"{image} is listed in both {self.lists[image]} and {file}; keep it in one of them")
            self.lists[image] = file

    def unlisted(self, image: Path) -> bool:
        """Whether the lists leave an image out that has to be in one of them."""
        return self.complete and image not in self.lists and self.part.get(image) != "unlabeled"


def read_parts(texts: Iterable[Path], images: Sequence[Path], root: Path) -> GivenParts:
    """Read the lists of images among text files: ``ImageSets/Segmentation/val.txt``, or ``val.txt`` anywhere.

    A line names an image by its stem, its file name or its path, perhaps on another machine: of several images with
    that name the one counts whose folders fit best. What follows (a mask, a number) does not matter. A file that is
    only called like a part, and of which no line names an image, is no list.

    Raises:
        UserError: A list is not UTF-8, a line fits several images, or an image is in two parts.
    """
    ends = defaultdict(list)
    for image in images:
        for name in {image.name.casefold(), image.stem.casefold()}:
            ends[name].append(image)
    found = GivenParts(root)
    whole: list[tuple[Path, list[Path]]] = []
    for file in _lists(list(texts), root):
        listed, lacking = _listed(file, ends)
        if not listed and not _is_voc(file, root):
            continue
        found.used.append(file)
        if lacking:
            shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            found.warnings.append(
                f"{file}: {counted(len(lacking), 'listed image is', 'listed images are')} not in the data ({shown})"
            )
        if part := split_named([file.stem]):
            found.put(part, listed, file)
        else:
            whole.append((file, listed))
    for file, listed in whole:
        if "train" not in found.part.values() and file.stem.casefold() == "trainval":
            found.part.update({image: "train" for image in listed if image not in found.part})
        found.lists.update({image: file for image in listed if image not in found.lists})
    found.complete = bool(whole) or "train" in found.part.values()
    return found


def _lists(texts: Sequence[Path], root: Path) -> list[Path]:
    """The files that are called like a list; of several image sets of Pascal VOC those for masks."""
    has_voc = any(_is_voc(file, root) for file in texts)
    found = []
    for file in texts:
        is_voc = _is_voc(file, root)
        is_list = split_named([file.stem]) or (is_voc and _WHOLE.fullmatch(file.stem))
        for_boxes = has_voc and not is_voc and _LISTS[0] in {folder.name.casefold() for folder in file.parents}
        if file.suffix.lower() == ".txt" and is_list and not for_boxes:
            found.append(file)
    return found


def _is_voc(file: Path, root: Path) -> bool:
    names = tuple(name.casefold() for name in file.relative_to(root).parts[-3:-1])
    return names == _LISTS


def _listed(file: Path, ends: dict[str, list[Path]]) -> tuple[list[Path], list[str]]:
    """The images that a list names, and its lines that name none."""
    listed, lacking = [], []
    for number, line in enumerate(read_lines(file, "names of images"), 1):
        if not (text := line.strip()):
            continue
        options = [text, text.split()[0]] if " " in text or "\t" in text else [text]
        fitting = next((images for option in options if (images := _named(option, ends))), [])
        if len(fitting) > 1:
            shown = " and ".join(map(str, fitting[:2]))
            raise UserError(f"{file}:{number}: '{text}' may be {shown}; write more of the path")
        listed += fitting
        if not fitting:
            lacking.append(text)
    return listed, lacking


def _named(text: str, ends: dict[str, list[Path]]) -> list[Path]:
    """The images called like the last name of ``text``, with or without suffix, whose folders fit best."""
    words = [word.casefold() for word in text.replace("\\", "/").split("/") if word not in {"", ".", ".."}]
    best = 0
    fitting: list[Path] = []
    for image in ends.get(words[-1], ()) if words else ():
        folders = zip(reversed(words[:-1]), (part.casefold() for part in reversed(image.parts[:-1])))
        alike = 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))
        if alike > best:
            best, fitting = alike, []
        if alike == best:
            fitting.append(image)
    return fitting
