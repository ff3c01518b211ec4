from pathlib import Path

import pytest

from dfssd.datasets.records import MaskItem
from dfssd.datasets.samples import evenly, evenly_by_class


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(10, 4, [0, 2, 5, 7]), (3, 5, [0, 1, 2]), (3, None, [0, 1, 2]), (10, 0, []), (0, 4, []), (0, None, [])],
)
def test_numbers_are_evenly_spaced(count, most, expected):
    assert evenly(count, most) == expected


def test_pictures_show_every_class() -> None:
    def item(i: int, *pixels: int) -> MaskItem:
        return MaskItem(Path(f"{i}.png"), Path(f"m{i}.png"), "test", pixels)

    items = [item(i, 10, 5 * (i < 20), 0, 5 * (20 <= i < 21)) for i in range(30)]
    shown = evenly_by_class(items, 8)
    assert len(shown) == 5 and [i.classes.most_common(1)[0][0] for i in shown].count(3) == 1
    assert evenly_by_class(items[21:], 8) == []
