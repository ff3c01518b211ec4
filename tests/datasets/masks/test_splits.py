import json
from pathlib import Path

import numpy as np
import pytest
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import SemanticDataset
from ultralytics.data.utils import check_det_dataset

from dfssd.datasets.masks.splits import grouped_split, official_split, read_mask_split, write_mask_split
from dfssd.datasets.records import MaskItem, MaskSet
from dfssd.datasets.splits import LISTS, SplitOptions
from dfssd.errors import UserError
from tests.configured import load_masks
from tests.segmentation.material import NEU_NAMES, neu_seg


def item(i, classes, split=None):
    if classes is None:
        return MaskItem(Path(f"/set/images/{split}/{i}.jpg"), None, split)
    pixels = tuple(100 if k in (0, *classes) else 0 for k in range(4))
    return MaskItem(Path(f"/set/images/{split}/{i}.jpg"), Path(f"/set/masks/{split}/{i}.png"), split, pixels)


def drawn(seed, labeled=1.0, ratios=(0.8, 0.1, 0.1)):
    return SplitOptions(labeled, None, ratios, seed)


@pytest.fixture
def twofold():
    """600 train and 200 test images in groups of four, spread over both parts; a fifth free of defects."""
    rng = np.random.default_rng(0)
    kinds = [(), (1,), (2,), (3,), (1, 2)]
    items = [item(i, kinds[(i // 4) % 5], "test" if test else "train") for i, test in enumerate(rng.random(800) < 0.25)]
    return MaskSet("set", NEU_NAMES, tuple(items)), [i // 4 * 4 for i in range(800)]


def sides(split, dataset, groups):
    """Lists in which each group occurs."""
    home = {path: name for name in LISTS for path in getattr(split, name)}
    found: dict[int, set[str]] = {}
    for known, group in zip(dataset.items, groups):
        found.setdefault(group, set()).add(home[known.image])
    return list(found.values())


def share(dataset, paths, class_id):
    chosen = [i for i in dataset.items if i.image in set(paths)]
    return sum(class_id in i.classes if class_id else not i.classes for i in chosen) / len(chosen)


def test_official_keeps_the_test_part_and_draws_val_by_groups(twofold):
    dataset, groups = twofold
    split = official_split(dataset, groups, drawn(seed=0))
    assert set(split.test) == {i.image for i in dataset.items if i.split == "test"}
    n = len(dataset.items) - len(split.test)
    assert abs(len(split.val) - n / 9) <= 4 and split.train_unlabeled == ()
    assert not any({"train_labeled", "val"} <= home for home in sides(split, dataset, groups))
    for class_id in range(4):
        assert share(dataset, split.val, class_id) == pytest.approx(
            share(dataset, split.train_labeled, class_id), abs=0.06
        )


def test_official_needs_parts(twofold):
    dataset, groups = twofold
    plain = MaskSet("plain", NEU_NAMES, tuple(MaskItem(i.image, i.mask, None, i.pixels) for i in dataset.items))
    with pytest.raises(UserError, match="plain has no official val or test split; pass split=grouped"):
        official_split(plain, groups, drawn(seed=0))


@pytest.mark.parametrize("seed", range(3))
def test_grouped_has_no_group_on_two_sides(twofold, seed):
    dataset, groups = twofold
    split = grouped_split(dataset, groups, drawn(labeled=0.25, ratios=(0.7, 0.1, 0.2), seed=seed))
    assert all(len(home) == 1 for home in sides(split, dataset, groups))
    assert [len(getattr(split, name)) for name in LISTS] == [140, 420, 80, 160]
    everything = [path for name in LISTS for path in getattr(split, name)]
    assert sorted(everything) == sorted(i.image for i in dataset.items)
    for name in LISTS:
        for class_id, expected in enumerate((0.2, 0.4, 0.4, 0.2)):
            assert share(dataset, getattr(split, name), class_id) == pytest.approx(expected, abs=0.06)


def test_the_seed_decides(twofold):
    dataset, groups = twofold
    assert grouped_split(dataset, groups, drawn(seed=1)) == grouped_split(dataset, groups, drawn(seed=1))
    assert grouped_split(dataset, groups, drawn(seed=1)).test != grouped_split(dataset, groups, drawn(seed=2)).test


def test_unlabeled_images_are_trained_on_unless_a_twin_is_tested(twofold):
    dataset, groups = twofold
    more = tuple(item(800 + k, None, "unlabeled") for k in range(200))
    dataset = MaskSet("set", NEU_NAMES, dataset.items + more)
    groups = [*groups, *(4 * k for k in range(200))]
    split = grouped_split(dataset, groups, drawn(seed=0))
    held = {group for i, group in zip(dataset.items, groups) if i.image in {*split.val, *split.test}}
    for i, group in zip(more, groups[800:]):
        assert (i.image in split.left_out) == (group in held) != (i.image in split.train_unlabeled)


def test_a_class_without_a_labeled_image_is_reported_but_the_background_needs_none(twofold):
    dataset, groups = twofold
    without = MaskSet("set", NEU_NAMES, tuple(i for i in dataset.items if 3 not in i.classes))
    kept = [group for i, group in zip(dataset.items, groups) if 3 not in i.classes]
    with pytest.raises(UserError, match=r"no labeled training image of class 'scratches'.*no image of set has it"):
        grouped_split(without, kept, drawn(seed=0))
    full = MaskSet("set", NEU_NAMES, tuple(MaskItem(i.image, i.mask, i.split, (0, 9, 9, 9)) for i in dataset.items))
    assert grouped_split(full, groups, drawn(seed=0)).train_labeled


def test_the_lists_can_be_written_and_read_again_even_elsewhere(twofold, tmp_path):
    dataset, groups = twofold
    split = grouped_split(dataset, groups, drawn(labeled=0.5, seed=0))
    write_mask_split(split, dataset, tmp_path)
    for source in (tmp_path, tmp_path / "data.yaml"):
        again = read_mask_split(source, dataset)
        assert [getattr(again, name) for name in LISTS] == [getattr(split, name) for name in LISTS]
        assert again.duplicates == split.duplicates
    moved = tuple(MaskItem(Path("/other", *i.image.parts[2:]), i.mask, i.split, i.pixels) for i in dataset.items)
    again = read_mask_split(tmp_path, MaskSet("set", NEU_NAMES, moved))
    assert [path.parts[2:] for path in again.test] == [path.parts[2:] for path in split.test]
    counts = json.loads((tmp_path / "split.json").read_text())["counts"]["test"]
    assert set(counts) == {"images", "pixels", "images_per_class", "pixels_per_class"}
    assert set(counts["images_per_class"]) == {"inclusion", "patches", "scratches"}
    assert counts["pixels_per_class"]["inclusion"] == 100 * counts["images_per_class"]["inclusion"]


def test_an_image_without_mask_is_not_labeled(twofold, tmp_path):
    dataset, groups = twofold
    dataset = MaskSet("set", NEU_NAMES, (*dataset.items, item(900, None, "unlabeled")))
    write_mask_split(grouped_split(dataset, [*groups, 900], drawn(seed=0)), dataset, tmp_path)
    (tmp_path / "val.txt").write_text("/set/images/unlabeled/900.jpg\n")
    (tmp_path / "train_unlabeled.txt").write_text("")
    with pytest.raises(UserError, match=r"val\.txt:1: .*900\.jpg has no labels"):
        read_mask_split(tmp_path, dataset)


def test_the_lists_serve_plain_ultralytics(tmp_path):
    """The files of ``data.yaml`` are read by its own data set class, which finds every mask and takes every id."""
    dataset = load_masks(str(neu_seg(tmp_path / "NEU-Seg", train=12, test=4)), tmp_path / "sets")
    split = official_split(dataset, range(16), drawn(seed=0))
    data = check_det_dataset(str(write_mask_split(split, dataset, tmp_path / "splits")))
    assert data["names"] == dict(enumerate(NEU_NAMES))
    theirs = SemanticDataset(img_path=data["test"], data=data, task="semantic", imgsz=64, hyp=get_cfg(), augment=False)
    assert sorted(theirs.im_files) == sorted(map(str, split.test))
    assert sorted(theirs.mask_files) == sorted(str(i.mask) for i in dataset.items if i.split == "test")
