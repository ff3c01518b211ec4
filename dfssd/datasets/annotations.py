"""What a file beside the images can be, and what label files say, in one form for all formats.

A reader (:mod:`dfssd.datasets.readers`) turns one file into one of the kinds below and judges nothing else: which image
an annotation belongs to, which of two claims holds and whether a box lies inside its image is decided in one place for
all formats (:mod:`dfssd.datasets.assembly`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

NO_BOXES = np.zeros((0, 4), dtype=np.float64)
NO_BOXES.flags.writeable = False


@dataclass(frozen=True)
class Polygons:
    """How rows of YOLO that are read as polygons look if they are boxes with keypoints, which have the same columns.

    One file seldom tells; all files of a data set together do (``settle_keypoints``).

    Attributes:
        columns: Number of columns of its rows; 0 if they differ, as those of boxes with keypoints never do.
        fits: Whether each row can be a box with keypoints in it.
        jumps: Whether a row has its second point far from all others, as no usual polygon has.
    """

    columns: int
    fits: bool
    jumps: bool


@dataclass(frozen=True, eq=False)
class Annotation:
    """What one file says about one image.

    Attributes:
        file: The label file.
        image: The image as the file names it, a path with "/" or a bare name; None: the image is the one that is called
            like the label file.
        labels: Class of each box: its name, or its id where the format has ids without names (YOLO, some CSV).
        boxes: (n, 4) float64, one row per label: corners x1, y1, x2, y2 [px] in an image of ``size``; if
            ``normalized``, x, y, w, h of YOLO (center format), clipped to 0-1 already.
        normalized: Whether boxes are relative to the image instead of pixels.
        size: (width, height) [px] of the image as the file states it; None if it states none (or 0).
        split: "train", "val", "test" or "unlabeled" if the file says so.
        place: Where in the file, for messages, such as ``:12`` (a line) or ``: image 'a.png'``; appended to the path.
        problem: Why it cannot be used (a sentence part such as "class id -1 is not a whole number from 0 on"); the
            boxes then mean nothing.
        polygons: How sure it is that rows of YOLO are the polygons that they were taken for; None for other labels.
    """

    file: Path
    image: str | None = None
    labels: tuple[str | int, ...] = ()
    boxes: np.ndarray = field(default_factory=lambda: NO_BOXES)
    normalized: bool = False
    size: tuple[int, int] | None = None
    split: str | None = None
    place: str = ""
    problem: str | None = None
    polygons: Polygons | None = None

    @property
    def where(self) -> str:
        """File and place, the beginning of a message."""
        return f"{self.file}{self.place}"


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A file with annotations.

    Attributes:
        file: Its path.
        format: Name of the format, a value of ``labels=``: yolo, voc, coco, cvat, labelme, label-studio, createml,
            via, csv.
        annotations: One per image that it mentions.
        names: The classes that it lists in its order (categories, a header); None if it lists none. Annotations of the
            other formats name their classes box by box.
        ordered: Whether the order of ``names`` means ids, so that another file must not list another order.
        notes: What was left out or taken in a certain way and the user should know ("3 crowd regions left out").
        parents: Those of ``names`` that may be mere groups of other classes (a supercategory of COCO): a class only if
            some file of the source has a box of it.
    """

    file: Path
    format: str
    annotations: tuple[Annotation, ...]
    names: tuple[str, ...] | None = None
    ordered: bool = False
    notes: tuple[str, ...] = ()
    parents: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ClassFile:
    """A list of class names in id order (``classes.txt``, ``obj.names``, ``notes.json`` of Label Studio)."""

    file: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class SplitFile:
    """A list that puts images into a split: ``ImageSets/Main/val.txt``, Darknet's ``train.txt``.

    Attributes:
        file: Its path.
        split: "train", "val", "test" or "unlabeled".
        images: The images as listed: paths with "/" or bare stems.
    """

    file: Path
    split: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class DescriptionFile:
    """A description of a data set that names its other files, such as ``obj.data`` of Darknet.

    Attributes:
        file: Its path.
        entries: What it says: text by key (classes, train, valid, names, ...).
    """

    file: Path
    entries: Mapping[str, str]


@dataclass(frozen=True)
class OtherFile:
    """A file that has no part in the data; ``reason`` completes "left out because ..."."""

    file: Path
    reason: str


@dataclass(frozen=True)
class BrokenFile:
    """A file that looks like labels or a description but cannot be read; ``problem`` says why and what to do."""

    file: Path
    problem: str


Found = LabelFile | ClassFile | SplitFile | DescriptionFile | OtherFile | BrokenFile
"""What a reader makes of one file."""
