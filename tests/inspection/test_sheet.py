"""The contact sheet: labels are drawn where they are, and hide nothing of the defects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.account import Role
from dfssd.datasets.records import DetectionSet, Item, MaskItem, MaskSet
from dfssd.errors import UserError
from dfssd.inspection import sheet
from dfssd.inspection.report import DataReport, inspect_data, role_of
from dfssd.reporting.overlays import class_colors
from tests.inspection.material import boxes, report, write_image

ORANGE, BLUE = class_colors(3)[1:].astype(int)


def drawn(found: DataReport, path: Path) -> np.ndarray:
    """(h, w, 3) int."""
    sheet.write_sheet(found, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(picture: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Where a picture has that color."""
    return (np.abs(picture - color).max(2) < 4).nonzero()


def one_square(folder: Path, side: int, *, size: int = 64, left: int = 20, top: int = 30) -> DataReport:
    """A gray image with one white square in its box, of class 1."""
    pixels = np.full((size, size, 3), 120, np.uint8)
    pixels[top : top + side, left : left + side] = 255
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "a.png")
    row = (1, (left + side / 2) / size, (top + side / 2) / size, side / size, side / size)
    item = Item(folder / "a.png", boxes(row), None, size=(size, size))
    return inspect_data(DetectionSet("one", ("dark", "bright"), (item,)), None, [0])


def test_frame_surrounds_the_defect_and_hides_none_of_it(tmp_path: Path) -> None:
    side = 24
    picture = drawn(one_square(tmp_path, side), tmp_path / "data.png")
    scale = sheet._SIDE / 64
    tile = picture[70:, : sheet._SIDE + 2 * sheet._MARGIN]  # below the legend, which has the color, too
    rows, columns = near(tile, BLUE)
    rows, columns = rows[columns < 400], columns[columns < 400]
    left, right = columns.min(), columns.max()
    white = (tile[rows.min() : rows.max(), left:right] == 255).all(2)
    assert abs(right - left + 1 - (side * scale + 2 * sheet._LINE)) <= 2
    assert left == sheet._MARGIN + int(20 * scale) - sheet._LINE
    assert abs(white.sum() - (side * scale) ** 2) < 3 * side * scale


@pytest.mark.parametrize(("size", "enlarged"), [(640, True), (64, False)])
def test_tiny_defects_are_enlarged(tmp_path: Path, size: int, enlarged: bool) -> None:
    """2 px of 640 are hardly a point in the tile, but 19 in the inset, in which 16 px are 150; 8 of 64 need none."""
    side = 2 if enlarged else 8
    picture = drawn(one_square(tmp_path, side, size=size), tmp_path / "data.png")
    tile = picture[70 + sheet._MARGIN :, sheet._MARGIN : sheet._SIDE + sheet._MARGIN]
    inset = tile[: sheet._INSET + 6, -sheet._INSET - 6 :]  # the corner that hides nothing
    white = (inset == 255).all(2).sum()
    assert (abs(white - (2 * sheet._INSET / 16) ** 2) < 80) == enlarged
    assert (near(inset, BLUE)[0].size > 2 * 3 * sheet._INSET) == enlarged


def test_long_thin_defect_is_not_enlarged_to_the_same_size(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", width=200, height=200)
    item = Item(tmp_path / "a.png", boxes((1, 0.5, 0.5, 0.9, 0.01)), None, size=(200, 200))
    found = inspect_data(DetectionSet("one", ("dark", "bright"), (item,)), None, [0])
    tile = drawn(found, tmp_path / "data.png")[70:]
    assert near(tile, BLUE)[0].size < 2 * 3 * 440 + 200 * 16  # the frame and the name alone


def test_as_many_of_each_class_then_samples_without_defects_and_without_labels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    kinds = [boxes((0, 0.5, 0.5, 0.2, 0.2))] * 50 + [boxes((1, 0.5, 0.5, 0.2, 0.2))] * 15
    kinds += [boxes()] * 9 + [None] * 100  # type: ignore[list-item]
    items = tuple(Item(path, own, None, size=(80, 40)) for own in kinds)
    chosen = sheet.choose(inspect_data(DetectionSet("many", ("dark", "bright"), items), None, range(len(items))))
    assert len(chosen) == sheet.TILES
    assert [sum(role_of(item) is role for item in chosen) for role in (Role.DEFECT_FREE, Role.UNLABELED)] == [2, 2]
    by_class = [sum(item.classes[i] for item in chosen) for i in (0, 1)]
    assert by_class == [10, 10]


def test_sheet_of_all_kinds(tmp_path: Path) -> None:
    found = report(tmp_path)
    path = tmp_path / "out" / "data.png"
    assert sheet.write_sheet(found, path) == 6  # v and w are left out
    assert Image.open(path).size[0] == sheet._COLUMNS * (sheet._SIDE + 2 * sheet._MARGIN)
    assert list(path.parent.iterdir()) == [path]


def test_masks_are_outlined_on_their_images(tmp_path: Path) -> None:
    Image.fromarray(np.full((64, 64), 120, np.uint8)).save(tmp_path / "a.png")
    ids = np.zeros((64, 64), np.uint8)
    ids[10:30, 5:25] = 2
    Image.fromarray(ids).save(tmp_path / "mask.png")
    pixels = (64 * 64 - 400, 0, 400)
    item = MaskItem(tmp_path / "a.png", tmp_path / "mask.png", None, pixels, size=(64, 64))
    data = MaskSet("plates", ("background", "pit", "spot"), (item,))
    tile = drawn(inspect_data(data, None, [0]), tmp_path / "data.png")[70:]
    scale = sheet._SIDE / 64
    assert abs(near(tile, BLUE)[0].size - 76 * scale**2) < 4 * 40 * scale, "a border of one pixel"


def test_regions_of_a_mask_by_hand() -> None:
    ids = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [255, 1, 0, 0]], np.uint8)
    marks = {(mark.class_id, mark.corners) for mark in sheet._regions(ids)}
    assert marks == {(1, (0, 0, 2, 1)), (1, (1, 2, 2, 3)), (2, (3, 0, 4, 2))}


def test_image_that_is_gone_is_one_line(tmp_path: Path) -> None:
    found = one_square(tmp_path, 8)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png: cannot be read"):
        sheet.write_sheet(found, tmp_path / "data.png")
    assert not (tmp_path / "data.png").exists()


def test_many_boxes_are_named_by_the_legend_alone(tmp_path: Path) -> None:
    """13 boxes: no text over the defects; the legend has one square for each class that is shown."""
    path = write_image(tmp_path / "a.png", width=400, height=400)
    rows = [(0, (k % 4 + 0.5) / 4, (k // 4 + 0.5) / 4, 0.1, 0.1) for k in range(13)]
    few, many = (
        inspect_data(
            DetectionSet("set", ("dark", "bright"), (Item(path, boxes(*rows[:n]), None, size=(400, 400)),)), None, [0]
        )
        for n in (12, 13)
    )
    filled = [near(drawn(found, tmp_path / f"{i}.png"), ORANGE)[0].size for i, found in enumerate((few, many))]
    assert filled[0] > filled[1] + 12 * 200


@pytest.mark.parametrize(("text", "cut"), [("short.png", False), ("x" * 500, True), ("", False)])
def test_texts_are_cut_to_their_place(text: str, cut: bool) -> None:
    shown = sheet._fitted(text, 200, 15)
    assert (shown != text) == cut and sheet._font(15).getlength(shown) <= 200
