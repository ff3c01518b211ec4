"""What the numbers of the boxes of a table are: pixels or 0-1, corners or sizes; decided by all rows together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dfssd.datasets.label_files import TOLERANCE, clip_box
from dfssd.datasets.readers.csv_columns import CORNER_AND_SIZE, CORNERS, MIDDLE_AND_SIZE, BadLabels, Columns
from dfssd.datasets.readers.json_values import Box, Unusable, name_of

_ID = re.compile(r"(-?\d{1,9})(?:\.0*)?", re.ASCII)
"""A class id, perhaps written as a float."""

_LEAST_PROOFS = 2
"""One row may be a slip; so many have to contradict a form of the boxes, and none the form that is taken."""


class _Row(Protocol):
    """What this module needs to know of a row."""

    @property
    def line(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def numbers(self) -> Box | None: ...
    @property
    def size(self) -> tuple[int, int] | None: ...


@dataclass(frozen=True)
class BoxTable:
    """How boxes and classes of a table are to be read.

    Attributes:
        form: What the four numbers are.
        relative: Whether they are relative to the image.
        ids: Whether the classes are ids.
    """

    form: str
    relative: bool
    ids: bool

    @classmethod
    def of(cls, columns: Columns, rows: Sequence[_Row]) -> BoxTable:
        """Find out by all rows of a table.

        Raises:
            BadLabels: It is not certain.
        """
        boxes = [row.numbers for row in rows if row.numbers is not None]
        relative = bool(boxes) and all(max(map(abs, box)) <= 1 + TOLERANCE for box in boxes)
        form = next(iter(columns.forms)) if len(columns.forms) == 1 else _proven(columns, rows, relative)
        labels = {row.label for row in rows if row.label}
        if not columns.header and form == CORNERS:
            for row in rows:
                if row.numbers and (row.numbers[2] <= row.numbers[0] or row.numbers[3] <= row.numbers[1]):
                    raise BadLabels(
                        f"line {row.line}: x2 y2 is not right of and below x1 y1; columns without a header have to be "
                        "path,x1,y1,x2,y2,class"
                    )
        return cls(form, relative, bool(labels) and all(map(_ID.fullmatch, labels)))

    def box(self, numbers: Box) -> Box:
        """The box as an annotation holds it: corners [px], or xywh (0-1) inside the image.

        Raises:
            ValueError: It is none.
        """
        a, b, c, d = numbers
        if self.form == CORNERS:
            x1, y1, x2, y2 = numbers
        elif self.form == CORNER_AND_SIZE:
            x1, y1, x2, y2 = a, b, a + c, b + d
        else:
            x1, y1, x2, y2 = a - c / 2, b - d / 2, a + c / 2, b + d / 2
        if x2 <= x1 or y2 <= y1:
            raise Unusable(f"box without area (x1 y1 x2 y2 = {x1:g} {y1:g} {x2:g} {y2:g}); remove or correct it")
        if self.relative:
            return clip_box(*(numbers if self.form == MIDDLE_AND_SIZE else _middle(x1, y1, x2, y2)))
        if max(map(abs, numbers)) <= 1:
            raise Unusable("box of 0-1 among boxes in pixels; use one of both")
        return x1, y1, x2, y2

    def label(self, text: str) -> str | int:
        """The class as an annotation holds it.

        Raises:
            Unusable: It is none.
        """
        if not self.ids:
            return name_of(text, "the class")
        match = _ID.fullmatch(text)
        if match is None:
            raise Unusable("the class is empty; give the box a class")
        if int(match[1]) < 0:
            raise Unusable(f"class id {text} is not a whole number from 0 on")
        return int(match[1])


def _middle(x1: float, y1: float, x2: float, y2: float) -> Box:
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _proven(columns: Columns, rows: Iterable[_Row], relative: bool) -> str:
    """The only form that no row contradicts.

    Raises:
        BadLabels: There are several, or none.
    """
    against: Counter[str] = Counter()
    n = 0
    for row in rows:
        if row.numbers is not None:
            n += 1
            against.update(_contradicted(row.numbers, (1, 1) if relative else row.size, 0 if relative else 1))
    possible = [form for form in columns.forms if not against[form]]
    others = [form for form in columns.forms if form not in possible]
    if n == 0:
        return CORNERS
    if len(possible) == 1 and all(against[form] >= max(_LEAST_PROOFS, n // 100) for form in others):
        return possible[0]
    raise BadLabels(
        "its boxes may be corners, a corner and a size, or a middle and a size; call the columns xmin, ymin, xmax, "
        "ymax, or left, top, width, height, or x_center, y_center, width, height"
    )


def _contradicted(box: Box, size: tuple[int, int] | None, slack: float) -> list[str]:
    """Forms in which a box has no area, or leaves an image of that size; ``slack`` [px] is for rounding."""
    a, b, c, d = box
    forms = {CORNERS: (a, b, c, d), CORNER_AND_SIZE: (a, b, a + c, b + d)}
    forms[MIDDLE_AND_SIZE] = (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
    wrong = []
    for form, (x1, y1, x2, y2) in forms.items():
        margin = slack + TOLERANCE * max(size or (c, d))
        outside = min(x1, y1) < -margin or (size is not None and (x2 > size[0] + margin or y2 > size[1] + margin))
        if outside or x2 <= x1 or y2 <= y1:
            wrong.append(form)
    return wrong
