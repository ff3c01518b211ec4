"""Text files: YOLO labels, lists of class names, lists of images, the description of Darknet, or none of these.

The first of these that is true decides:

1. all rows are labels;
2. the name is that of a text for people (``README.txt``);
3. the name is that of a list of class names (``classes.txt``);
4. it is empty: labels of an image without defects;
5. ``key = value`` lines of Darknet;
6. at least half of the rows are nearly labels: labels with a problem;
7. paths of images, or stems in a file that is called like a split: a list of images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dfssd.datasets.annotations import BrokenFile, ClassFile, DescriptionFile, Found, LabelFile, OtherFile, SplitFile
from dfssd.datasets.label_files import is_number
from dfssd.datasets.readers.json_values import Unusable, name_of
from dfssd.datasets.readers.texts import RESAVE, read_text_of, unreadable
from dfssd.datasets.readers.yolo import broken_labels, labels_of
from dfssd.datasets.sources import split_named

_CLASS_LIST = re.compile(
    r"_?(?:(?:predefined_)?class(?:es)?|labels|names|(?:class|label)[._-]?(?:names|labels|list))\.(?:txt|labels|lst)"
    r"|.+\.names|_?darknet\.labels",
    re.IGNORECASE,
)
"""Names of files that list class names."""

_ABOUT = re.compile(r"(?:readme|licen[cs]e|copying|changelog|notice|citation|requirements)(?:\..+)?", re.IGNORECASE)
"""Names of files for people."""

_IMAGE = re.compile(
    r".*\.(?:bmp|dib|jpe?g|jpe|jfif|jp2|png|tiff?|webp|avif|hei[cf]|p[bgpn]m|gif|mpo|dng)", re.IGNORECASE
)
"""A path of an image, with blanks or without."""

_PAIR = re.compile(rf"{_IMAGE.pattern}\s+\S+\.(?:txt|xml|json|png|bmp|tiff?)", re.IGNORECASE)
"""An image and its label or mask."""

_CLASS_OF_IMAGE = re.compile(r"(\S+)\s+-?\d+")
_BOX = re.compile(r"(?:-?[\d.]+,){4}-?[\d.]+")
_DOTA_HEADER = re.compile(r"(?:imagesource|gsd):.*", re.IGNORECASE)
_NO_FILE_NAME = re.compile(r"[<>\"|?*]|[.:;!]$")
"""What no stem of an image holds, but sentences do."""

_ENTRY = re.compile(r"([A-Za-z_]\w*)\s*=\s*(.*)")
_DARKNET_LISTS = {"train", "valid", "test", "names"}
_NUMBERED = re.compile(r"(\d+)\s*[:,;\s]\s*(\S.*)")
_OTHER_TASKS = {"layout", "action"}
"""Folders of ``ImageSets`` with lists for tasks of Pascal VOC without boxes of objects."""


def is_class_list(file: Path) -> bool:
    """Whether a file has a name that tools give to lists of class names."""
    return _CLASS_LIST.fullmatch(file.name) is not None


def read_text(file: Path, keypoints: tuple[int, int] | None = None) -> Found:
    """Read a text file (.txt, .names, .labels, .data, .lst).

    Args:
        file: The file.
        keypoints: ``kpt_shape`` of the data set, if a YAML states one; see :func:`~.yolo.read_yolo`.

    Returns:
        What it is. A file whose lines are neither is another file, whatever image is called like it: where one is,
        whoever pairs labels and images has to say so.
    """
    try:
        text = read_text_of(file)
    except OSError as e:
        return BrokenFile(file, unreadable(e))
    found = _found_in(file, text.text, keypoints)
    if text.utf8:
        return found
    if isinstance(found, OtherFile):
        return OtherFile(file, f"{found.reason} (and not UTF-8)")
    return broken_labels(file, RESAVE) if isinstance(found, LabelFile) else BrokenFile(file, RESAVE)


def _found_in(file: Path, text: str, keypoints: tuple[int, int] | None) -> Found:
    lines = [line.strip() for line in text.splitlines()]
    rows = [line for line in lines if line]
    if rows and all(map(_is_label, rows)):
        return labels_of(file, lines, keypoints)
    if _ABOUT.fullmatch(file.name):
        return OtherFile(file, "text for people")
    class_list = is_class_list(file)
    if "\0" in text and not text.strip("\0 \t\r\n"):
        problem = "holds nothing but zero bytes, as after a crash; restore it"
        return BrokenFile(file, problem) if class_list or _splits(file.stem) else broken_labels(file, problem)
    if class_list:
        return _class_list(file, lines)
    if not rows:
        return labels_of(file, lines)
    if entries := _darknet_entries(rows):
        return DescriptionFile(file, entries)
    if _lists_boxes(rows):
        return BrokenFile(
            file, "lists images with their boxes (Keras YOLO), which is not read; export COCO, VOC or YOLO"
        )
    content = [row for row in rows if not _DOTA_HEADER.fullmatch(row)]
    if content and 2 * sum(map(_is_like_label, content)) >= len(content):
        return labels_of(file, lines, keypoints)
    return _image_list(file, rows)


def _is_label(row: str) -> bool:
    """Whether a row is one of numbers, as many as a label has at least."""
    columns = row.split()
    return len(columns) >= 5 and all(map(is_number, columns))


def _is_like_label(row: str) -> bool:
    """Whether a row is a label, perhaps a wrong one or of another format: mostly numbers, at least three."""
    if _is_label(row):
        return True
    if _IMAGE.fullmatch(row):
        return False
    columns = re.split(r"[,;\s]+", row)
    numbers = sum(map(is_number, columns))
    return numbers >= 3 and 2 * numbers >= len(columns)


def _class_list(file: Path, lines: Sequence[str]) -> Found:
    names = list(lines)
    while names and not names[-1]:
        names.pop()
    if not names:
        return OtherFile(file, "list of class names without any")
    if "" in names:
        number = names.index("") + 1
        return BrokenFile(
            file, f"line {number} is blank, and the order of the lines gives the ids; remove the line, or fill it"
        )
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    ids = [int(match[1]) if match and len(match[1]) < 9 else -1 for match in numbered]
    if ids == list(range(len(names))):
        names = [match[2] for match in numbered if match]
    elif len(names) > 1 and ids == list(range(1, len(names) + 1)):
        return BrokenFile(
            file, "its lines are numbered from 1, and class ids count from 0; list the names alone in the order of ids"
        )
    try:
        return ClassFile(file, tuple(name_of(name, f"the name in line {i}") for i, name in enumerate(names, 1)))
    except Unusable as e:
        return BrokenFile(file, str(e))


def _darknet_entries(rows: Sequence[str]) -> dict[str, str]:
    """Entries of a description of Darknet; empty if it is none."""
    matches = [_ENTRY.fullmatch(row) for row in rows if not row.startswith("#")]
    if not all(matches):
        return {}
    entries = {match[1].lower(): match[2].replace("\\", "/") for match in matches if match}
    return entries if len(_DARKNET_LISTS & entries.keys()) > 1 else {}


def _image_list(file: Path, rows: Sequence[str]) -> Found:
    if all(map(_PAIR.fullmatch, rows)):
        return OtherFile(file, "list of images with a label file each")
    classes = [_CLASS_OF_IMAGE.fullmatch(row) for row in rows]
    if all(classes) and len({match[1] for match in classes if match}) == len(rows):
        return OtherFile(file, "list of images with a class each")
    splits = _splits(file.stem)
    paths = all(map(_IMAGE.fullmatch, rows))
    if not paths and not (splits and _are_stems(file, rows)):
        return OtherFile(file, "text that is neither labels nor a list")
    if file.parent.name.lower() in _OTHER_TASKS:
        return OtherFile(file, "list of images for another task")
    if len(splits) != 1:
        together = " and ".join(splits)
        return OtherFile(file, f"list of images of {together} together" if splits else "list of images of no split")
    return SplitFile(file, splits[0], tuple(row.replace("\\", "/").removeprefix("./") for row in rows))


def _splits(stem: str) -> list[str]:
    """The splits that the name of a list states, in alphabetical order."""
    words = re.split(r"[^a-z0-9]+", stem.lower().replace("trainval", "train-val"))
    splits = {split for word in words if (split := split_named([word]))}
    return ["unlabeled"] if "unlabeled" in splits else sorted(splits)


def _are_stems(file: Path, rows: Sequence[str]) -> bool:
    """Whether the lines of a list that states a split may be names of images; in doubt a blank speaks against it."""
    if any(map(_NO_FILE_NAME.search, rows)):
        return False
    return split_named([file.stem.lower()]) is not None or not any(len(row.split()) > 1 for row in rows)


def _lists_boxes(rows: Sequence[str]) -> bool:
    """Whether lines are an image and boxes behind it: ``a.jpg x1,y1,x2,y2,class x1,y1,x2,y2,class``."""
    found = False
    for row in rows:
        path = row.split()
        while path and _BOX.fullmatch(path[-1]):
            path.pop()
            found = True
        if not _IMAGE.fullmatch(" ".join(path)):
            return False
    return found
