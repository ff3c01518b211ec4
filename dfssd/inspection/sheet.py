"""``data.png``: a contact sheet of a data set, on which a person sees whether the labels sit on the defects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfssd.datasets.account import Role
from dfssd.datasets.images.pixels import read_pixels
from dfssd.datasets.masks.files import read_mask
from dfssd.datasets.records import IGNORE, Item, MaskItem
from dfssd.datasets.samples import evenly, evenly_by_class
from dfssd.inspection.files import written
from dfssd.inspection.report import DataReport, corner_boxes, is_labeled, role_of
from dfssd.reporting.overlays import class_colors, outlined
from dfssd.wording import counted

TILES = 24
_COLUMNS = 4
_SAMPLES = 2
"""Images shown without a defect, and without labels."""

_SIDE = 460
"""Longer side of a picture [px]."""

_BORDER = 2
"""Thickness of the border of a mask in a picture [px]."""

_MARGIN = 10
"""Around a picture [px]: frames lie outside of their boxes, also at the edge of the image."""

_CAPTION = 44
"""Height of the two lines below a picture [px]."""

_LINE = 3
"""Width of a frame [px]."""

_SMALL = 16
"""Shorter side of a box in the picture [px] below which it is shown enlarged, too."""

_INSET = 150
"""Side of such an enlargement [px]."""

_MOST_NAMED = 12
"""With more boxes in an image, only the legend names their classes."""

_BACKGROUND, _TEXT, _FAINT, _ACCENT = (255, 255, 255), (30, 30, 30), (110, 110, 110), (170, 60, 0)

Color = tuple[int, int, int]

Frame = tuple[int, int, int, int]
"""Corners x1, y1, x2, y2 [px] in a picture; the first pixel inside and the first one behind."""


@dataclass(frozen=True)
class _Mark:
    """A defect: class id and corners x1, y1, x2, y2 [px] in the image."""

    class_id: int
    corners: tuple[float, float, float, float]

    @property
    def shorter(self) -> float:
        """Its shorter side [px]."""
        x1, y1, x2, y2 = self.corners
        return min(x2 - x1, y2 - y1)


@dataclass(frozen=True)
class _Place:
    """Where an image lies in a picture.

    Attributes:
        scale: Pixels of the picture per pixel of the image.
        left: Of its upper left corner in the picture [px].
        top: As ``left``.
    """

    scale: float
    left: int
    top: int

    def of(self, corners: Sequence[float]) -> Frame:
        """Corners in the image as corners in the picture, rounded outward, so that all of a box lies inside."""
        x1, y1, x2, y2 = (value * self.scale for value in corners)
        left, top = math.floor(x1 + 0.01), math.floor(y1 + 0.01)
        right, bottom = math.ceil(x2 - 0.01), math.ceil(y2 - 0.01)
        return self.left + left, self.top + top, self.left + max(right, left + 1), self.top + max(bottom, top + 1)


def write_sheet(report: DataReport, path: Path) -> int:
    """Draw some images of a data set with their labels.

    Args:
        report: The data set.
        path: File to write.

    Returns:
        Number of images shown, at most :data:`TILES`.

    Raises:
        UserError: The file cannot be written, or an image can no longer be read.
    """
    sheet = _Sheet(report)
    chosen = choose(report)
    picture = sheet.draw(chosen)
    with written(path) as temporary:
        picture.save(temporary, compress_level=4)
    return len(chosen)


def choose(report: DataReport) -> list[Item | MaskItem]:
    """Images with defects, as many of each class, then some without defects and some without labels."""
    others: list[Item | MaskItem] = []
    for role in (Role.DEFECT_FREE, Role.UNLABELED):
        found = [item for item in report.items if role_of(item) is role]
        others += [found[i] for i in evenly(len(found), _SAMPLES)]
    labeled = [item for item in report.items if role_of(item) is Role.LABELED]
    return [*evenly_by_class(labeled, TILES - len(others)), *others]


class _Sheet:
    """Draws the tiles of a data set."""

    def __init__(self, report: DataReport):
        self.report = report
        names = len(report.names)
        self.colors = class_colors(names) if report.masks else class_colors(names + 1)[1:]
        self.shown: set[int] = set()

    def draw(self, items: Sequence[Item | MaskItem]) -> Image.Image:
        """All tiles below a legend."""
        tiles = [self._tile(item) for item in items]
        columns = min(_COLUMNS, max(2, len(tiles)))
        head = self._head(len(items), columns * (_SIDE + 2 * _MARGIN))
        rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
        heights = [max(tile.height for tile in row) for row in rows]
        sheet = Image.new("RGB", (head.width, head.height + sum(heights)), _BACKGROUND)
        sheet.paste(head, (0, 0))
        top = head.height
        for row, height in zip(rows, heights, strict=True):
            for column, tile in enumerate(row):
                sheet.paste(tile, (column * tile.width, top))
            top += height
        return sheet

    def _head(self, n: int, width: int) -> Image.Image:
        """The name of the data set, and the classes that are shown with their colors."""
        places, x, y = [], _MARGIN, 40
        for class_id in sorted(self.shown):
            name = _fitted(self.report.names[class_id], 240, 15)
            length = int(_font(15).getlength(name)) + 40
            if x + length > width:
                x, y = _MARGIN, y + 24
            places.append((class_id, name, x, y))
            x += length
        head = Image.new("RGB", (width, y + (30 if places else 0)), _BACKGROUND)
        draw = ImageDraw.Draw(head)
        text = f"{self.report.dataset.name}: {n:,} of {counted(len(self.report.items), 'image')} as training reads them"
        draw.text((_MARGIN, 10), _fitted(text, width - 2 * _MARGIN, 18), _TEXT, _font(18))
        for class_id, name, x, y in places:
            draw.rectangle((x, y + 2, x + 14, y + 16), tuple(self.colors[class_id].tolist()), (0, 0, 0))
            draw.text((x + 20, y), name, _TEXT, _font(15))
        return head

    def _color(self, mark: _Mark) -> Color:
        red, green, blue = self.colors[mark.class_id].tolist()
        return red, green, blue

    def _tile(self, item: Item | MaskItem) -> Image.Image:
        """An image with its labels, its name and what is on it."""
        pixels = cv2.cvtColor(read_pixels(item.image), cv2.COLOR_BGR2RGB)
        marks = self._marks(item, (pixels.shape[1], pixels.shape[0]))
        self.shown.update(mark.class_id for mark in marks)
        if isinstance(item, MaskItem) and item.mask is not None and is_labeled(item):
            thickness = max(1, round(_BORDER * max(pixels.shape[:2]) / _SIDE))
            gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            pixels = outlined(gray, read_mask(item.mask), self.colors, thickness)
        scale = _SIDE / max(pixels.shape[:2])
        picture = _scaled(pixels, scale)
        tile = Image.new("RGB", (_SIDE + 2 * _MARGIN, picture.height + 2 * _MARGIN + _CAPTION), _BACKGROUND)
        place = _Place(scale, _MARGIN + (_SIDE - picture.width) // 2, _MARGIN)
        tile.paste(picture, (place.left, place.top))
        draw = ImageDraw.Draw(tile)
        boxes = [] if self.report.masks else marks
        for mark in boxes:
            _frame(draw, place.of(mark.corners), self._color(mark))
        self._draw_inset(tile, pixels, marks, place)
        for mark in boxes if len(boxes) <= _MOST_NAMED else ():
            self._draw_name(draw, mark, place.of(mark.corners), tile.width)
        self._draw_caption(draw, item, place.top + picture.height + _MARGIN)
        return tile

    def _draw_caption(self, draw: ImageDraw.ImageDraw, item: Item | MaskItem, y: int) -> None:
        """The file name, and below it the part of the split and what is on the image."""
        draw.text((_MARGIN, y - 4), _fitted((item.source or item.image).name, _SIDE, 15), _TEXT, _font(15))
        part = self.report.parts.get(item.image)
        text = " · ".join([*([part] if part else []), self._content(item)])
        color = _FAINT if role_of(item) is Role.LABELED else _ACCENT
        draw.text((_MARGIN, y + 15), _fitted(text, _SIDE, 13), color, _font(13))

    def _marks(self, item: Item | MaskItem, size: tuple[int, int]) -> list[_Mark]:
        """The defects of an image; in a mask each connected region of a class."""
        if not is_labeled(item):
            return []
        if isinstance(item, MaskItem):
            return _regions(read_mask(item.mask)) if item.mask else []
        assert item.boxes is not None
        corners = corner_boxes(item.boxes, size).tolist()
        return [_Mark(int(row[0]), (x1, y1, x2, y2)) for row, (x1, y1, x2, y2) in zip(item.boxes, corners, strict=True)]

    def _content(self, item: Item | MaskItem) -> str:
        """What is on an image, in words."""
        role = role_of(item)
        if role is not Role.LABELED:
            return str(role.value).removesuffix(" image")
        names = self.report.names
        if isinstance(item, MaskItem):
            total = sum(item.pixels)
            return ", ".join(f"{names[i]} {n / total:.1%}" for i, n in item.classes.most_common())
        return ", ".join(f"{n} {names[i]}" for i, n in sorted(item.classes.items()))

    def _draw_name(self, draw: ImageDraw.ImageDraw, mark: _Mark, frame: Frame, width: int) -> None:
        """The class of a box above its frame, or below where the picture ends."""
        name, color = _fitted(self.report.names[mark.class_id], 160, 12), self._color(mark)
        length = int(_font(12).getlength(name)) + 6
        x = max(0, min(frame[0] - _LINE, width - length))
        y = frame[1] - _LINE - 17
        y = frame[3] + _LINE + 1 if y < 0 else y
        draw.rectangle((x, y, x + length, y + 15), color)
        bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 130
        draw.text((x + 3, y), name, (0, 0, 0) if bright else (255, 255, 255), _font(12))

    def _draw_inset(self, tile: Image.Image, pixels: np.ndarray, marks: Sequence[_Mark], place: _Place) -> None:
        """The smallest defect enlarged, where it hides the least, if it is hard to see otherwise."""
        smallest = min(marks, key=lambda mark: mark.shorter, default=None)
        if smallest is None or smallest.shorter * place.scale >= _SMALL:
            return
        height, width = pixels.shape[:2]
        x1, y1, x2, y2 = smallest.corners
        side = min(max(16, round(1.6 * max(x2 - x1, y2 - y1))), width, height)
        zoom = _INSET / side
        if zoom < 1.5 * place.scale:  # a long thin defect, which would hardly be larger
            return
        x = round(min(max((x1 + x2 - side) / 2, 0), width - side))
        y = round(min(max((y1 + y2 - side) / 2, 0), height - side))
        inset = Image.new("RGB", (_INSET + 2 * _LINE, _INSET + 2 * _LINE), self._color(smallest))
        inset.paste(_scaled(pixels[y : y + side, x : x + side], zoom), (_LINE, _LINE))
        if not self.report.masks:
            frame = _Place(zoom, _LINE, _LINE).of((x1 - x, y1 - y, x2 - x, y2 - y))
            _frame(ImageDraw.Draw(inset), frame, self._color(smallest))
        area = place.of((0, 0, width, height))
        corner = _free_corner([place.of(mark.corners) for mark in marks], area)
        own = place.of(smallest.corners)
        middle = corner[0] + inset.width // 2, corner[1] + inset.height // 2
        near = min(((x, y) for x in own[::2] for y in own[1::2]), key=lambda p: math.dist(p, middle))
        ImageDraw.Draw(tile).line((*middle, *near), self._color(smallest), 1)
        tile.paste(inset, corner)


def _scaled(pixels: np.ndarray, scale: float) -> Image.Image:
    """An image resized; enlarged pixels stay visible as squares."""
    height, width = pixels.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return Image.fromarray(cv2.resize(pixels, size, interpolation=how))


def _frame(draw: ImageDraw.ImageDraw, frame: Frame, color: Color) -> None:
    """A line around a box, none of whose pixels it covers, with a dark rim to be seen on any ground."""
    x1, y1, x2, y2 = frame
    for distance in range(1, _LINE + 2):
        line = (0, 0, 0) if distance == _LINE + 1 else color
        draw.rectangle((x1 - distance, y1 - distance, x2 + distance - 1, y2 + distance - 1), None, line)


def _free_corner(frames: Sequence[Frame], area: Frame) -> tuple[int, int]:
    """Upper left corner of the inset in that corner of ``area`` where it hides the least of the frames."""
    side = _INSET + 2 * _LINE
    x1, y1, x2, y2 = area
    corners = [(x, y) for y in (y1, max(y1, y2 - side)) for x in (x1, max(x1, x2 - side))]

    def hidden(corner: tuple[int, int]) -> float:
        x, y = corner
        sizes = ((min(f[2], x + side) - max(f[0], x), min(f[3], y + side) - max(f[1], y)) for f in frames)
        return sum(max(0, w) * max(0, h) for w, h in sizes)

    return min(corners, key=hidden)


def _fitted(text: str, width: int, size: int) -> str:
    """A text cut to a width [px], its middle left out; what cannot be drawn (line breaks) is replaced."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    if _font(size).getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        if _font(size).getlength(short) <= width:
            return short
    return text[:1]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the figures, of which matplotlib brings a copy."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _regions(ids: np.ndarray) -> list[_Mark]:
    """The connected regions of each class of a mask but the background and ignored pixels."""
    marks = []
    for class_id in np.unique(ids).tolist():
        if class_id in (0, IGNORE):
            continue
        _, _, stats, _ = cv2.connectedComponentsWithStats((ids == class_id).astype(np.uint8))
        for x, y, w, h, _ in stats[1:].tolist():
            marks.append(_Mark(class_id, (x, y, x + w, y + h)))
    return marks
