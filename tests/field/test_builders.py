"""The material of the table is what it says: photos show their patches, tools write boxes that are true of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.field.builders import (
    NAMES,
    Patch,
    Photo,
    coco,
    in_splits,
    oriented,
    photo,
    raw,
    sound,
    voc,
    write_tree,
    yolo,
)
from tests.field.table import CASES, SOURCES
from tests.field.truth import Corners, false_boxes


def marked(seed: int) -> list[tuple[str, Corners]]:
    return [(p.name, (p.x1, p.y1, p.x2, p.y2)) for p in photo(seed).patches]


@pytest.mark.parametrize("seed", range(30))
def test_photos_show_what_they_say(seed) -> None:
    assert false_boxes(marked(seed), photo(seed).pixels) == []


def test_false_boxes_are_found() -> None:
    """One of each kind: another class, another place, another size, none at all."""
    pixels = photo(1).pixels
    (name, (x1, y1, x2, y2)), second = marked(1)
    other = NAMES[1 - NAMES.index(name)]
    for wrong in ((other, (x1, y1, x2, y2)), (name, (x1 + 8, y1, x2 + 8, y2)), (name, (x1, y1, x2 - 6, y2 - 5))):
        assert false_boxes([wrong, second], pixels), wrong
    assert false_boxes([second], pixels) and false_boxes([*marked(1), second], pixels)


def test_both_classes_are_in_each_split() -> None:
    tree = in_splits("images/{split}/{}.png", "labels/{split}/{}.txt")
    for split in ("train", "val", "test"):
        texts = [raw(content).decode() for path, content in tree.items() if path.startswith(f"labels/{split}")]
        assert {line[0] for text in texts for line in text.splitlines()} == {"0", "1"}


def test_rows_by_hand() -> None:
    shown = Photo(np.zeros((64, 96), np.uint8), (Patch("dark", 24, 16, 48, 24), Patch("bright", 0, 0, 96, 64)))
    assert yolo(shown) == "1 0.375000 0.312500 0.250000 0.125000\n0 0.500000 0.500000 1.000000 1.000000\n"
    assert "<xmin>25</xmin><ymin>17</ymin><xmax>48</xmax><ymax>24</ymax>" in voc(shown, "a.png")
    assert [box["bbox"] for box in coco([("a.png", shown)])["annotations"]] == [[24, 16, 24, 8], [0, 0, 96, 64]]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_viewers_turn_the_pixels_back(orientation) -> None:
    shown = photo(0, 64, 96).pixels
    with Image.open(io.BytesIO(oriented(shown, ".png", orientation))) as image:
        stored = np.asarray(image)
    assert stored.shape == ((96, 64) if orientation == 3 else (64, 96))
    k = {3: 2, 6: -1, 8: 1}[orientation]  # 6: turn by a quarter clockwise to show
    assert (np.rot90(stored, k) == shown).all() and (orientation == 3 or not np.array_equal(stored, shown))


def test_trees_are_written_in_any_order(tmp_path) -> None:
    for backwards in (False, True):
        write_tree(sound(), tmp_path / str(backwards), backwards=backwards)
    first, second = (
        {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}
        for top in (tmp_path / "False", tmp_path / "True")
    )
    assert first == second and len(first) == 17


def test_every_module_has_cases() -> None:
    assert len(CASES) > 150 and {case.build.__module__ for case in CASES.values()} == {s.__name__ for s in SOURCES}
    assert all(case.build() for case in CASES.values())
