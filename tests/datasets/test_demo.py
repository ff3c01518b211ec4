import numpy as np
import pytest
from PIL import Image

from dfssd.datasets import demo
from dfssd.datasets.cards import find_card
from dfssd.datasets.demo import NAMES, draw_image, make_demo
from dfssd.datasets.formats import load_dataset

COUNTS = {"train": 12, "unlabeled": 6, "val": 4, "test": 4}


def test_the_classes_are_those_of_cr7():
    assert find_card("CR7-DET").names == NAMES


def test_drawings_depend_on_the_seed_alone():
    for a, b in zip(draw_image(np.random.default_rng(3)), draw_image(np.random.default_rng(3))):
        np.testing.assert_array_equal(a, b)
    assert (draw_image(np.random.default_rng(3))[0] != draw_image(np.random.default_rng(4))[0]).any()


def test_each_box_lies_inside_the_image_and_holds_a_clear_defect():
    found = set()
    for seed in range(60):
        image, boxes = draw_image(np.random.default_rng(seed), 160)
        assert image.shape == (160, 160) and image.dtype == np.uint8
        assert ((boxes[:, 1:] >= 0) & (boxes[:, 1:] <= 1)).all() and len(boxes) <= 3
        found |= set(boxes[:, 0].astype(int))
        for class_id, x, y, w, h in boxes:
            x1, y1, x2, y2 = (round(float(v) * 160) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            assert 0 <= x1 < x2 <= 160 and 0 <= y1 < y2 <= 160
            assert min(x2 - x1, y2 - y1) >= 3, NAMES[int(class_id)]
            inside = image[y1:y2, x1:x2].astype(float)
            assert np.abs(inside - np.median(image)).max() > 40, NAMES[int(class_id)]
    assert found == set(range(7))


def test_all_splits_are_there_and_every_class_can_be_learnt(tmp_path):
    file = make_demo(tmp_path)
    stamp = file.stat().st_mtime_ns
    dataset = load_dataset("demo", tmp_path)
    assert file.stat().st_mtime_ns == stamp  # made once
    assert dataset.name == "demo" and dataset.names == NAMES
    parts = {split: [i for i in dataset.items if i.split == split] for split in ("train", "unlabeled", "val", "test")}
    assert {split: len(items) for split, items in parts.items()} == {
        "train": 96,
        "unlabeled": 192,
        "val": 48,
        "test": 48,
    }
    for split in ("train", "val", "test"):
        assert {c for i in parts[split] for c in i.classes} == set(range(7))
    assert all(i.boxes is not None for i in parts["unlabeled"])  # known, to judge pseudo-labels


def test_sizes_can_be_chosen_and_splits_do_not_repeat_images(tmp_path):
    folder = make_demo(tmp_path, COUNTS, seed=5, size=96).parent
    images = sorted((folder / "images").rglob("*.jpg"))
    assert len(images) == 26 and len({path.read_bytes() for path in images}) == 26
    with Image.open(images[0]) as image:
        assert image.size == (96, 96)
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name]


@pytest.mark.parametrize("class_id", range(7))
def test_boxes_touch_what_was_drawn_on_all_four_sides(class_id, monkeypatch):
    """On a plain sheet the changed pixels span the box, up to a pixel of soft edge."""
    monkeypatch.setattr(demo, "_steel", lambda rng, size: np.full((size, size), 200.0))
    monkeypatch.setattr(demo, "_DRAW", (demo._DRAW[class_id],) * 7)
    for seed in range(10):
        image, boxes = draw_image(np.random.default_rng(seed), 160)
        if len(boxes) == 1:
            ys, xs = np.nonzero(image != 200)
            x, y, w, h = boxes[0, 1:] * 160
            np.testing.assert_allclose([x - w / 2, x + w / 2, y - h / 2, y + h / 2],
                                       [xs.min(), xs.max() + 1, ys.min(), ys.max() + 1], atol=1.01)  # fmt: skip
