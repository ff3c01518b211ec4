"""CSV: tables with a box in each row, with the columns of TensorFlow, Roboflow, RetinaNet, OpenImages and the like."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dfssd.datasets.annotations import Annotation, BrokenFile, ClassFile, Found, LabelFile, OtherFile
from dfssd.datasets.readers.csv_boxes import BoxTable
from dfssd.datasets.readers.csv_columns import BadLabels, Columns, NotLabels, columns_of
from dfssd.datasets.readers.json_values import Box, Unusable, image_name, shown, stated_size
from dfssd.datasets.readers.texts import RESAVE, read_text_of, unreadable
from dfssd.datasets.readers.via import read_via
from dfssd.datasets.sources import split_named
from dfssd.wording import counted

_VIA = {"filename", "region_shape_attributes", "region_attributes"}
"""Columns of VGG Image Annotator."""

_EMPTY = {"", "nan", "na", "null", "none"}
"""How tools write that a cell has no value."""

_SEPARATOR = re.compile(r"sep=(.)\s*")
"""First line of Excel that states the separator of the columns."""


def read_csv(file: Path) -> Found:
    """Read a table (.csv, .tsv).

    Boxes of pixels or, if all of them lie in 0-1, relative to the image. Columns are separated by comma, semicolon or
    tab; with the latter two, numbers may have decimal commas. An image whose row has neither class nor box is free of
    defects.

    Args:
        file: The file, UTF-8 with or without byte-order mark.

    Returns:
        A label file of format "csv" (or "via"); a broken file if it holds labels and its columns are not certain, or
        if it holds run lengths of masks or predictions; a class file for a list ``name,id``; any other table is
        another file.
    """
    try:
        text = read_text_of(file)
    except OSError as e:
        return BrokenFile(file, unreadable(e))
    try:
        found = _read(file, text.text)
    except NotLabels as e:
        found = OtherFile(file, str(e))
    except (BadLabels, Unusable) as e:
        found = BrokenFile(file, str(e))
    if text.utf8 or isinstance(found, OtherFile):
        return found
    return BrokenFile(file, RESAVE)


def _read(file: Path, text: str) -> Found:
    """Read the text of a table.

    Raises:
        NotLabels: It is no table of labels.
        BadLabels or Unusable: It is one that cannot be read.
    """
    if text.startswith("#") and "CSV_HEADER" in text[:10_000]:
        raise BadLabels("is a table of VIA 3, which is not read; export COCO, or annotate with VIA 2")
    delimiter, rows = _table(text)
    try:
        first = next((row for row in rows if any(row.cells)), None)
    except csv.Error as e:
        raise NotLabels(f"table that cannot be read ({e})") from e
    if first is None:
        raise NotLabels("empty table")
    header = [cell.lstrip("# ") for cell in first.cells]
    try:
        if set(header) >= _VIA:
            return read_via(file, _via_content(header, rows))
        if "class" in file.stem.lower():
            rows, copy = itertools.tee(rows)
            if names := _class_list([first, *copy]):
                return ClassFile(file, names)
        columns = columns_of(first.cells)
        body = rows if columns.header else itertools.chain([first], rows)
        parsed = [_parse(row, columns, delimiter != ",") for row in body if any(row.cells)]
    except csv.Error as e:
        raise BadLabels(f"is not valid CSV ({e}); save it again with one row per line") from e
    return _label_file(file, columns, parsed)


@dataclass(frozen=True)
class _Row:
    """Cells without white space around them, and the number of their (last) line."""

    line: int
    cells: list[str]

    def __getitem__(self, column: int | None) -> str:
        """A cell; empty beyond the end."""
        return "" if column is None or column >= len(self.cells) else self.cells[column]


@dataclass(frozen=True)
class _Parsed:
    """What a row says.

    Attributes:
        line: Its number.
        image: The image.
        label: The class; empty if there is none.
        numbers: The box, whatever form it has; None if there is none.
        size: (width, height) of the image [px], if stated.
        split: The split, if stated.
        group: Whether the box is around several objects.
        problem: Why the row is wrong; empty if it is not.
    """

    line: int
    image: str
    label: str = ""
    numbers: Box | None = None
    size: tuple[int, int] | None = None
    split: str | None = None
    group: bool = False
    problem: str = ""


def _table(text: str) -> tuple[str, Iterator[_Row]]:
    """Separator of the columns, and the rows."""
    head = text.lstrip()[:10_000].partition("\n")[0]
    stated = _SEPARATOR.fullmatch(head)
    delimiter = stated[1] if stated else max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = (_Row(reader.line_num, [cell.strip() for cell in row]) for row in reader)
    if stated:
        next((row for row in rows if any(row.cells)), None)
    return delimiter, rows


def _class_list(rows: Sequence[_Row]) -> tuple[str, ...]:
    """Names of a table ``name,id`` with the ids from 0 without gaps; empty if it is none."""
    cells = [row.cells for row in rows if any(row.cells)]
    if not all(len(row) == 2 and row[0] and row[1].isdecimal() and len(row[1]) < 9 for row in cells):
        return ()
    names = {int(row[1]): row[0] for row in cells}
    return tuple(names[i] for i in range(len(cells))) if sorted(names) == list(range(len(cells))) else ()


def _via_content(header: Sequence[str], rows: Iterator[_Row]) -> dict[str, Any]:
    """The rows of a table of VIA as the content of its JSON files."""
    image, shape, attributes = (
        header.index(name) for name in ("filename", "region_shape_attributes", "region_attributes")
    )
    content: dict[str, Any] = {}
    for row in rows:
        if not any(row.cells):
            continue
        entry = content.setdefault(row[image], {"filename": row[image], "regions": []})
        try:
            region = {
                "shape_attributes": json.loads(row[shape] or "{}"),
                "region_attributes": json.loads(row[attributes] or "{}"),
            }
        except (ValueError, RecursionError) as e:
            raise BadLabels(f"line {row.line}: a region is not valid JSON; export the annotations again") from e
        if region["shape_attributes"] != {}:
            entry["regions"].append(region)
    return content


def _parse(row: _Row, columns: Columns, decimal_comma: bool) -> _Parsed:
    """What a row says.

    Raises:
        Unusable: It names no image.
        BadLabels: It is a prediction.
    """
    image = image_name(row[columns.image], f"the image in line {row.line}")
    try:
        if columns.header and any(row.cells[columns.header :]):
            raise Unusable(f"{counted(len(row.cells), 'column')}, the header has {columns.header}")
        if columns.score is not None and row[columns.score] and _number(row[columns.score], decimal_comma) != 1:
            raise BadLabels(
                f"holds predictions and no labels (certainty {row[columns.score]} in line {row.line}); remove it, or "
                "the column if these are labels"
            )
        return _Parsed(
            row.line,
            image,
            "" if row[columns.label].lower() in _EMPTY else row[columns.label],
            _numbers([row[column] for column in columns.box], decimal_comma),
            stated_size(*(row[column] for column in columns.size)) if columns.size else None,
            split_named([row[columns.split].lower()]),
            row[columns.group].lower() in {"1", "true"},
        )
    except Unusable as e:
        return _Parsed(row.line, image, problem=str(e))


def _numbers(cells: Sequence[str], decimal_comma: bool) -> Box | None:
    """The four numbers of a box in four cells, or in one as a list; None if the cells are empty."""
    if len(cells) == 1:
        text = cells[0].strip("[](){} ")
        cells, decimal_comma = re.split(r"[,;\s]+", text), False
    empty = [cell.lower() in _EMPTY for cell in cells]
    if all(empty):  # nothing between the brackets, too
        return None
    if len(cells) != 4 or any(empty):
        raise Unusable(f"the box has {len(cells) - sum(empty)} numbers, expected 4")
    a, b, c, d = (_number(cell, decimal_comma) for cell in cells)
    return a, b, c, d


def _number(cell: str, decimal_comma: bool) -> float:
    try:
        value = float(cell.replace(",", ".") if decimal_comma else cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Unusable(f"{shown(cell)} is not a number")
    return value


def _label_file(file: Path, columns: Columns, rows: Sequence[_Parsed]) -> LabelFile:
    """The rows by image.

    Raises:
        BadLabels: It is not certain what the numbers of the boxes are.
    """
    table = BoxTable.of(columns, rows)
    images: dict[str, _Image] = {}
    for row in rows:
        images.setdefault(row.image, _Image(row.line)).add(row, table)
    annotations = tuple(image.annotation(file, name, table.relative) for name, image in images.items())
    notes = []
    if groups := sum(row.group for row in rows):
        notes.append(f"{counted(groups, 'box', 'boxes')} around groups of objects left out")
    if empty := sum(not a.labels and a.problem is None for a in annotations):
        notes.append(f"{counted(empty, 'image')} without boxes: defect-free")
    return LabelFile(file, "csv", annotations, notes=tuple(notes))


@dataclass
class _Image:
    """What the rows of one image say so far; for the attributes see :class:`Annotation`."""

    first: int
    labels: list[str | int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None
    split: str | None = None
    line: int = 0
    problem: str | None = None
    empty: bool = False

    def add(self, row: _Parsed, table: BoxTable) -> None:
        """Add a row; the first wrong one makes the image unusable."""
        if self.problem is not None:
            return
        self.line = row.line
        try:
            if row.problem:
                raise Unusable(row.problem)
            self.size = _same(self.size, row.size, "sizes of the image")
            self.split = _same(self.split, row.split, "splits")
            if row.group:
                return
            if row.numbers is None:
                if row.label:
                    raise Unusable(f"class {shown(row.label)} without a box; an image without defects has no class")
                self.empty = True
            else:
                self.boxes.append(table.box(row.numbers))
                self.labels.append(table.label(row.label))
            if self.empty and self.boxes:
                raise Unusable("the image has rows with and without a box; remove the empty ones")
        except ValueError as e:
            self.problem = str(e)

    def annotation(self, file: Path, name: str, relative: bool) -> Annotation:
        """What the rows say about the image ``name``."""
        if self.problem is not None:
            return Annotation(file, name, normalized=relative, place=f":{self.line}", problem=self.problem)
        boxes = np.array(self.boxes, dtype=np.float64).reshape(-1, 4)
        return Annotation(
            file, name, tuple(self.labels), boxes, relative, self.size, self.split, place=f":{self.first}"
        )


T = TypeVar("T")


def _same(known: T | None, new: T | None, what: str) -> T | None:
    if known is not None and new is not None and known != new:
        raise Unusable(f"its rows state two {what} ({known} and {new}); correct them")
    return new if known is None else known
