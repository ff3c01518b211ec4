"""What has become of the boxes that were offered, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfssd.errors import UserError
from dfssd.review.offered import FILE, Changes, changes_of, compare_with_offered

SIZE = (100, 100)


def rows(*boxes: tuple[int, float, float, float, float]) -> np.ndarray:
    """Class id and corners [px] of an image of 100 x 100 px as rows in center format."""
    table = [(c, (x1 + x2) / 200, (y1 + y2) / 200, (x2 - x1) / 100, (y2 - y1) / 100) for c, x1, y1, x2, y2 in boxes]
    return np.array(table).reshape(-1, 5)


BOX, RIGHT, OTHER = (0, 10, 10, 30, 30), (0, 14, 10, 34, 30), (1, 10, 10, 30, 30)
"""A box, the same 4 px to the right (IoU 16 / 24), and in its place one of another class."""


@pytest.mark.parametrize(
    ("offered", "reviewed", "expected"),
    [
        ((), (), Changes()),
        ((BOX,), (BOX,), Changes(kept=1)),
        ((BOX,), ((0, 11.4, 10, 30, 30),), Changes(kept=1)),  # what formats round
        ((BOX,), (RIGHT,), Changes(moved=1)),
        ((BOX,), (OTHER,), Changes(relabeled=1)),
        ((OTHER,), (RIGHT,), Changes(relabeled=1)),  # and moved: one change of one box
        ((BOX,), (), Changes(deleted=1)),
        ((), (BOX,), Changes(added=1)),
        ((BOX,), ((0, 60, 60, 80, 80),), Changes(added=1, deleted=1)),  # elsewhere: another object
        ((BOX, OTHER), (BOX,), Changes(kept=1, deleted=1)),  # two offers for one object
        ((RIGHT, BOX), (BOX, OTHER), Changes(kept=1, relabeled=1)),
        ((BOX, RIGHT), (RIGHT, (0, 18, 10, 38, 30)), Changes(kept=1, added=1, deleted=1)),
        ((BOX, (0, 11, 10, 30, 30)), (BOX,), Changes(kept=1)),  # formats round, so that two become one
        (((0, 5, 5, 6, 6),), ((0, 5.9, 5, 6.9, 6),), Changes(kept=1)),  # a pixel apart: the same to any tool
    ],
)
def test_each_box_counts_once(offered: tuple, reviewed: tuple, expected: Changes) -> None:
    found = changes_of(rows(*offered), rows(*reviewed), SIZE)
    assert found == expected
    assert found.kept + found.moved + found.relabeled + found.deleted == len({*offered} - {(0, 11, 10, 30, 30)})
    assert found.kept + found.moved + found.relabeled + found.added == len(reviewed)
    turned = changes_of(rows(*offered[::-1]), rows(*reviewed[::-1]), SIZE)
    assert turned == expected, "the order of the boxes decides nothing"


def test_in_words() -> None:
    changes = Changes(1200, 3, 1, 0, 9)
    assert str(changes) == "1,200 kept, 3 moved, 1 relabeled, 0 added, 9 deleted" and not changes.nothing
    assert Changes(kept=4).nothing and not Changes(deleted=1).nothing
    assert Changes(1, 2, 3, 4, 5) + Changes(1, 1, 1, 1, 1) == Changes(2, 3, 4, 5, 6)


def test_images_that_were_not_offered_are_unknown(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    reviewed = {image: rows(BOX), tmp_path / "b.png": rows(BOX)}
    sizes = dict.fromkeys(reviewed, SIZE)
    nothing = compare_with_offered(None, reviewed, sizes)
    assert (nothing.images, nothing.unknown, nothing.changes) == (0, 2, Changes())
    assert compare_with_offered(tmp_path, reviewed, sizes) == nothing
    (tmp_path / "review").mkdir()
    (tmp_path / FILE).write_text(f'{{"{image.as_posix()}": []}}', encoding="utf-8")
    found = compare_with_offered(tmp_path, reviewed, sizes)
    assert (found.images, found.unknown, found.changes) == (1, 1, Changes(added=1))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": [["x"]]}'])
def test_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "review").mkdir()
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"offered\.json cannot be read"):
        compare_with_offered(tmp_path, {}, {})
