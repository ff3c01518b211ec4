import numpy as np
import pytest

from dfssd.datasets.records import Item, check_names
from dfssd.errors import UserError


def test_classes_of_an_item_count_boxes(tmp_path):
    boxes = np.array([[2, 0.5, 0.5, 0.1, 0.1], [2, 0.2, 0.2, 0.1, 0.1], [0, 0.7, 0.7, 0.1, 0.1]], np.float32)
    assert Item(tmp_path / "a.png", boxes, None).classes == {2: 2, 0: 1}
    assert not Item(tmp_path / "a.png", None, None).classes


def test_names_become_texts():
    assert check_names(["a", 7, " b "], "x") == ("a", "7", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pit", "dent", "Pit"], r"duplicate class name 'Pit' \(ids 0 and 2\) in cfg.yaml"),
        (["pit", " "], "class 1 has an empty name in cfg.yaml"),
        ([], "no class names in cfg.yaml"),
    ],
)
def test_bad_names_are_reported(names, message):
    with pytest.raises(UserError, match=message):
        check_names(names, "cfg.yaml")
