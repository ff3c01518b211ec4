"""Which column of a table of boxes holds what: by its header, or by the form of its rows; never by a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dfssd.datasets.label_files import is_number
from dfssd.datasets.readers.json_values import shown

CORNERS, CORNER_AND_SIZE, MIDDLE_AND_SIZE = "corners", "corner and size", "middle and size"
"""What the four numbers of a box are: x1 y1 x2 y2; left top width height; x y width height around x y."""

ANY_SIZE = frozenset({CORNER_AND_SIZE, MIDDLE_AND_SIZE})

_IMAGE = (
    *("filename", "imagefilename", "imagefile", "imagename", "imgname", "file", "filepath", "imagepath", "imgpath"),
    *("path", "image", "img", "imageid", "imgid"),
)
"""Names of the column of the image, the surest first."""

_NAME = {"class", "classname", "label", "labelname", "category", "categoryname", "objectclass", "defect", "defecttype"}
_ID = {"classid", "labelid", "categoryid"}
_SPLIT = {"split", "subset"}
_SCORE = {"confidence", "conf", "score", "probability", "prob"}
_GROUP = {"isgroupof", "iscrowd"}
_RUN_LENGTHS = {"encodedpixels", "rle", "rlemask", "maskrle", "runlength", "runlengths"}
_SIZE = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("imagew", "imageh"), ("width", "height"))

_BOXES: tuple[tuple[str, frozenset[str]], ...] = (
    ("xmin ymin xmax ymax", frozenset({CORNERS})),
    ("minx miny maxx maxy", frozenset({CORNERS})),
    ("left top right bottom", frozenset({CORNERS})),
    ("xleft ytop xright ybottom", frozenset({CORNERS})),
    ("xtl ytl xbr ybr", frozenset({CORNERS})),
    ("startx starty endx endy", frozenset({CORNERS})),
    ("x0 y0 x1 y1", frozenset({CORNERS})),
    ("x1 y1 x2 y2", frozenset({CORNERS})),
    ("xmin ymin width height", frozenset({CORNER_AND_SIZE})),
    ("xmin ymin w h", frozenset({CORNER_AND_SIZE})),
    ("left top width height", frozenset({CORNER_AND_SIZE})),
    ("left top w h", frozenset({CORNER_AND_SIZE})),
    ("xcenter ycenter width height", frozenset({MIDDLE_AND_SIZE})),
    ("xcenter ycenter w h", frozenset({MIDDLE_AND_SIZE})),
    ("centerx centery width height", frozenset({MIDDLE_AND_SIZE})),
    ("cx cy w h", frozenset({MIDDLE_AND_SIZE})),
    ("bboxx bboxy bboxwidth bboxheight", frozenset({CORNER_AND_SIZE})),  # makesense.ai
    ("x y width height", ANY_SIZE),
    ("x y w h", ANY_SIZE),
)
"""Columns of a box and what they may be; the first set that a header has counts."""

_ONE_COLUMN = {"bbox", "box", "boundingbox"}
"""Names of a column with all four numbers, as ``[1, 2, 30, 40]``."""

_IMAGE_FILE = re.compile(r".+\.(?:bmp|jpe?g|jpe|jfif|jp2|png|tiff?|webp)", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """Where in a row the parts of a box are; columns count from 0.

    Attributes:
        image: The image.
        label: The class.
        box: The four numbers, or one column with all of them.
        forms: What the numbers may be (:data:`CORNERS`, ...).
        size: Width and height of the image [px].
        split: The split.
        score: The certainty of a prediction.
        group: Whether the box is around several objects.
        header: Number of columns that the header names; 0 without header.
    """

    image: int
    label: int
    box: tuple[int, ...]
    forms: frozenset[str]
    size: tuple[int, int] | None = None
    split: int | None = None
    score: int | None = None
    group: int | None = None
    header: int = 0


class NotLabels(Exception):
    """A table of something else; the text is a reason to leave it out."""


class BadLabels(Exception):
    """A table of labels that cannot be read; the text says why and what to do."""


def columns_of(first: Sequence[str]) -> Columns:
    """What the columns of a table are.

    Args:
        first: Its first row.

    Raises:
        NotLabels: It is no table of boxes.
        BadLabels: It is one, and a column is missing, or not certain.
    """
    if found := _by_form(first):
        return found
    names = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in first]
    if (run_lengths := _first(names, _RUN_LENGTHS)) is not None:
        raise BadLabels(
            f"holds run lengths of masks (column {shown(first[run_lengths])}) and no boxes; convert them to mask "
            "images and use task=semantic, or to boxes"
        )
    image = next((names.index(name) for name in _IMAGE if name in names), None)
    label = _label(first, names)
    box, forms = _box(names)
    if image is None and (label is None or not box):
        raise NotLabels(f"table without boxes of images (columns {_shown(first)})")
    if not box:
        known = {name for columns, _ in _BOXES for name in columns.split()} - {"width", "height", "w", "h"}
        if sum(_bare(name) in known for name in names) < 2:
            raise NotLabels(f"table without boxes (columns {_shown(first)})")
        raise BadLabels(f"its columns ({_shown(first)}) are not known as a box; call them xmin, ymin, xmax and ymax")
    if image is None:
        raise BadLabels(f"no column of the image (columns {_shown(first)}); call it filename")
    if label is None:
        raise BadLabels(f"no column of the class (columns {_shown(first)}); add one called class")
    return Columns(
        image,
        label,
        box,
        forms,
        size=_size(names, box),
        split=_first(names, _SPLIT),
        score=_first(names, _SCORE),
        group=_first(names, _GROUP),
        header=len(names),
    )


def _by_form(row: Sequence[str]) -> Columns | None:
    """Columns of tables without header: ``path,x1,y1,x2,y2,class`` of RetinaNet and the one of makesense.ai."""
    if len(row) == 6 and _IMAGE_FILE.fullmatch(row[0]) and (_numbers(row[1:5]) or not any(row[1:])):
        return Columns(0, 5, (1, 2, 3, 4), frozenset({CORNERS}))
    if len(row) == 8 and _IMAGE_FILE.fullmatch(row[5]) and _numbers([*row[1:5], *row[6:]]):
        return Columns(5, 0, (1, 2, 3, 4), frozenset({CORNER_AND_SIZE}), size=(6, 7))
    return None


def _numbers(cells: Sequence[str]) -> bool:
    return all(is_number(cell.replace(",", ".")) for cell in cells)


def _label(first: Sequence[str], names: Sequence[str]) -> int | None:
    """The column of the class: a name rather than an id."""
    for kind in (_NAME, _ID):
        found = [i for i, name in enumerate(names) if name in kind]
        if len(found) > 1:
            raise BadLabels(
                f"columns {shown(first[found[0]])} and {shown(first[found[1]])} may both be the class; remove one"
            )
        if found:
            return found[0]
    return None


def _box(names: Sequence[str]) -> tuple[tuple[int, ...], frozenset[str]]:
    """Columns of the box and what they may be; no columns if there is none."""
    for read in (list(names), [_bare(name) for name in names]):
        if "x3" in read:  # corners of an oriented box or a polygon
            continue
        for text, forms in _BOXES:
            columns = text.split()
            if all(read.count(column) == 1 for column in columns):
                return tuple(map(read.index, columns)), forms
    one = [i for i, name in enumerate(names) if name in _ONE_COLUMN]
    return (tuple(one), ANY_SIZE | {CORNERS}) if len(one) == 1 else ((), frozenset())


def _bare(name: str) -> str:
    """A name without the prefix of a box: ``bbox_xmin``."""
    return re.sub(r"^(?:bbox|box|bndbox)(?=.)", "", name)


def _size(names: Sequence[str], box: tuple[int, ...]) -> tuple[int, int] | None:
    """Columns of the size of the image, which are not those of the box."""
    for width, height in _SIZE:
        if width in names and height in names:
            columns = names.index(width), names.index(height)
            return None if set(columns) & set(box) else columns
    return None


def _first(names: Sequence[str], known: set[str]) -> int | None:
    return next((i for i, name in enumerate(names) if name in known), None)


def _shown(cells: Sequence[str]) -> str:
    """The first names of a header, for messages."""
    return ", ".join(" ".join(cell.split())[:30] for cell in cells[:8]) + (", ..." if len(cells) > 8 else "")
