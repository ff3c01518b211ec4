import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from ultralytics.data.utils import check_det_dataset

from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.split_files import read_split, write_split
from dfssd.datasets.splits import LISTS, Split, SplitOptions, check_new_labels, make_split, torn_groups
from dfssd.errors import UserError
from tests.configured import load_dataset

NAMES = ("a", "b", "c", "d")


def item(i, classes, split=None, folder="images"):
    boxes = None if classes is None else np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in classes], np.float32).reshape(-1, 5)
    return Item(Path(f"/set/{folder}/im {i}.png"), boxes, split)


def dataset(*items, names=NAMES):
    return DetectionSet("set", names, tuple(items))


@pytest.fixture
def skewed():
    """1,000 images, classes at about 60, 30, 12 and 3 %, some images with several, some free of defects."""
    rng = np.random.default_rng(0)
    shares = (0.6, 0.3, 0.12, 0.03)
    return dataset(*(item(i, [c for c, share in enumerate(shares) if rng.random() < share]) for i in range(1000)))


def split_of(data, groups=None, drop_copies=True, **options):
    options = {"labeled": 0.1, "limit": None, "ratios": (0.8, 0.1, 0.1), "seed": 0, **options}
    return make_split(data, groups or range(len(data.items)), SplitOptions(**options), drop_copies=drop_copies)


def per_class(data, paths):
    by_path = {i.image: i for i in data.items}
    return Counter(c for path in paths for c in by_path[path].classes)


def test_sizes_are_exact_and_nothing_is_lost_or_twice(skewed):
    split = split_of(skewed)
    assert [len(getattr(split, name)) for name in LISTS] == [80, 720, 100, 100]
    everything = [path for name in LISTS for path in getattr(split, name)]
    assert sorted(everything) == sorted(i.image for i in skewed.items)


@pytest.mark.parametrize("seed", range(5))
def test_every_part_has_its_share_of_every_class(skewed, seed):
    split = split_of(skewed, seed=seed)
    total = per_class(skewed, [i.image for i in skewed.items])
    for name, share in zip(LISTS, (0.08, 0.72, 0.1, 0.1)):
        found = per_class(skewed, getattr(split, name))
        for class_id in range(4):
            assert abs(found[class_id] - share * total[class_id]) <= max(1.0, 0.05 * share * total[class_id]), name


def test_the_seed_decides(skewed):
    assert split_of(skewed) == split_of(skewed)
    assert split_of(skewed).test != split_of(skewed, seed=1).test


def test_copies_stay_on_one_side(skewed):
    rng = np.random.default_rng(1)
    groups = [int(g) for g in rng.integers(0, 500, 1000)]
    split = split_of(skewed, groups)
    part = {path: name for name in LISTS for path in getattr(split, name)}
    homes: dict[int, set[str]] = {}
    for i, group in zip(skewed.items, groups):
        homes.setdefault(group, set()).add(part[i.image])
    assert all(len(home) == 1 for home in homes.values())
    assert sum(map(len, split.duplicates)) == sum(n for n in Counter(groups).values() if n > 1)
    assert abs(len(split.train_labeled) - 80) <= 3


def families_split(data, families, groups=None, **options):
    options = {"labeled": 0.1, "limit": None, "ratios": (0.8, 0.1, 0.1), "seed": 0, **options}
    return make_split(data, groups or range(len(data.items)), SplitOptions(**options), families=families)


@pytest.mark.parametrize("labeled", [1.0, 0.1, 200])
def test_a_turned_pair_changes_a_drawn_split_as_little_as_possible(skewed, labeled):
    before = split_of(skewed, labeled=labeled)
    position = {item.image: i for i, item in enumerate(skewed.items)}
    trained = [*before.train_labeled, *before.train_unlabeled]
    a = next(path for path in trained if list(skewed.items[position[path]].classes) == [0])
    b = before.test[3]
    families = list(range(1000))
    families[max(position[a], position[b])] = min(position[a], position[b])
    after = families_split(skewed, families, labeled=labeled)
    assert torn_groups(before, list(position), families) == 1
    assert torn_groups(after, list(position), families) == 0
    assert after.val == before.val
    assert set(after.test) - set(before.test) == {a}
    (other,) = set(before.test) - set(after.test)
    assert list(skewed.items[position[other]].classes) == [0]
    assert [len(getattr(after, name)) for name in LISTS] == [len(getattr(before, name)) for name in LISTS]
    assert per_class(skewed, after.train_labeled) == per_class(skewed, before.train_labeled)
    assert after.duplicates == (tuple(sorted((a, b), key=position.get)),)


def test_families_that_are_not_torn_change_nothing(skewed):
    before = split_of(skewed)
    families = list(range(1000))
    number = {item.image: i for i, item in enumerate(skewed.items)}
    for part in LISTS:
        i, j = (number[path] for path in getattr(before, part)[:2])
        families[j] = families[i]
    after = families_split(skewed, families)
    assert all(getattr(after, part) == getattr(before, part) for part in LISTS) and len(after.duplicates) == 4


def test_where_all_images_have_turned_copies_families_are_drawn(skewed):
    families = [i // 4 * 4 for i in range(1000)]
    split = families_split(skewed, families)
    assert torn_groups(split, [item.image for item in skewed.items], families) == 0
    assert split == split_of(skewed, families), "as if they were groups"
    assert abs(len(split.test) - 100) <= 4


def test_an_unlabeled_turned_copy_of_a_test_image_is_left_out():
    items = [item(i, [i % 4], "train") for i in range(20)] + [item(i, [i % 4], "val") for i in range(20, 24)]
    items += [item(i, [i % 4], "test") for i in range(24, 28)] + [item(28, None), item(29, None)]
    split = families_split(dataset(*items), [*range(28), 25, 0], labeled=1.0)
    assert [path.name for path in split.left_out] == ["im 28.png"]
    assert [path.name for path in split.train_unlabeled] == ["im 29.png"]


def test_turned_copies_across_given_splits_stay_where_they_are_and_are_counted():
    items = [item(i, [i % 4], "train") for i in range(20)] + [item(i, [i % 4], "val") for i in range(20, 24)]
    items += [item(i, [i % 4], "test") for i in range(24, 28)]
    families = [*range(24), 0, 1, 26, 27]
    split = families_split(dataset(*items), families, labeled=1.0)
    assert torn_groups(split, [i.image for i in items], families) == 2
    assert len(split.test) == 4 and len(split.train_labeled) == 20


def test_limit_is_a_stratified_subset(skewed):
    split = split_of(skewed, limit=200)
    used = [path for name in LISTS for path in getattr(split, name)]
    assert len(used) == 200
    total = per_class(skewed, [i.image for i in skewed.items])
    for class_id, n in per_class(skewed, used).items():
        assert abs(n - 0.2 * total[class_id]) <= max(2, 0.1 * 0.2 * total[class_id])


def test_labeled_is_a_share_or_a_number(skewed):
    assert len(split_of(skewed, labeled=1.0).train_labeled) == 800
    assert split_of(skewed, labeled=1.0).train_unlabeled == ()
    assert len(split_of(skewed, labeled=123).train_labeled) == 123
    single = dataset(*(item(i, [0]) for i in range(10)), names=("a",))
    assert len(split_of(single, labeled=1).train_labeled) == 1


def test_a_rare_class_keeps_an_image_in_the_labeled_part():
    data = dataset(*(item(i, [i % 3]) for i in range(300)), *(item(300 + i, [3]) for i in range(4)))
    for seed in range(10):
        split = split_of(data, labeled=0.05, seed=seed)
        assert per_class(data, split.train_labeled)[3] >= 1


def test_given_splits_are_kept_and_missing_ones_carved_out_of_train():
    items = [item(i, [i % 4], "train") for i in range(90)] + [item(i, [i % 4], "val") for i in range(90, 120)]
    split = split_of(dataset(*items), labeled=0.5)
    assert {path.name for path in split.val} == {f"im {i}.png" for i in range(90, 120)}
    assert len(split.test) == 10 and len(split.train_labeled) == 40
    assert not set(split.test) & set(split.val)


def test_images_without_labels_are_unlabeled_training_images_unless_held_out():
    items = [item(i, [i % 4]) for i in range(100)]
    items += [item(100, None), item(101, None, "val"), item(102, [0], "unlabeled")]
    split = split_of(dataset(*items), labeled=1.0)
    assert [path.name for path in split.train_unlabeled] == ["im 100.png", "im 102.png"]
    assert [path.name for path in split.left_out] == ["im 101.png"], "an image of val is never trained on"


def test_copies_across_given_splits_are_counted():
    items = [item(i, [i % 4], "train") for i in range(10)] + [item(i, [i % 4], "val") for i in range(10, 14)]
    items += [item(i, [i % 4], "test") for i in range(14, 18)]
    groups = [*range(10), 0, 1, 12, 13, 12, 15, 16, 17]
    split = split_of(dataset(*items), groups, labeled=1.0)
    images = [i.image for i in items]
    assert torn_groups(split, images, groups) == 2, "copies within val and test do not leak into training"
    assert torn_groups(split, images, list(range(18))) == 0


def test_unlabeled_copies_of_labeled_images_are_left_out():
    items = [item(i, [i % 4], "train") for i in range(20)] + [item(i, [i % 4], "val") for i in range(20, 24)]
    items += [item(i, [i % 4], "test") for i in range(24, 28)] + [item(28, None), item(29, None)]
    groups = [*range(28), 25, 0]
    split = split_of(dataset(*items), groups, labeled=1.0)
    assert [path.name for path in split.left_out] == ["im 28.png", "im 29.png"], "copies of a test and a train image"
    assert not split.train_unlabeled
    kept = split_of(dataset(*items), groups, labeled=1.0, drop_copies=False)
    assert [path.name for path in kept.left_out] == ["im 28.png"], "what shows test images is never trained on"
    assert [path.name for path in kept.train_unlabeled] == ["im 29.png"]


def test_a_class_without_labeled_images_is_reported():
    data = dataset(*(item(i, [i % 4]) for i in range(60)))
    with pytest.raises(UserError, match=r"no labeled training image of class .* among 2; raise labeled="):
        split_of(data, labeled=2)


def test_a_class_that_no_image_shows_is_allowed_unless_a_teacher_is_to_learn_it():
    data = dataset(*(item(i, [i % 3]) for i in range(60)))
    assert split_of(data, labeled=1.0).train_labeled
    options = SplitOptions(labeled=1.0, limit=None, ratios=(0.8, 0.1, 0.1), seed=0)
    with pytest.raises(UserError, match=r"no labeled training image of class 'd'.*no image of set has it"):
        make_split(data, range(60), options, exempt_classes=2)


@pytest.mark.parametrize(("labeled", "message"), [(801, "train has 800"), (0, "train has"), (1.5, "neither a share")])
def test_an_impossible_number_of_labels_is_reported(skewed, labeled, message):
    with pytest.raises(UserError, match=message):
        split_of(skewed, labeled=labeled)


def test_too_few_images_are_reported():
    with pytest.raises(UserError, match="only 2 labeled images"):
        split_of(dataset(item(0, [0]), item(1, [0]), names=("a",)))


def test_the_lists_serve_plain_ultralytics(squares, tmp_path):
    data = load_dataset(str(squares), tmp_path / "sets")
    split = split_of(data, labeled=0.5)
    data_yaml = write_split(split, data, tmp_path / "run" / "splits")
    theirs = check_det_dataset(str(data_yaml))
    assert theirs["names"] == dict(enumerate(data.names))
    assert Path(theirs["train"]).read_text().splitlines() == [str(path) for path in split.train_labeled]
    assert set(yaml.safe_load(data_yaml.read_text())) == {"train", "val", "test", "names"}


def test_the_summary_counts_images_and_boxes(tmp_path):
    data = dataset(*(item(i, [0, 0, 1]) for i in range(30)), names=("a", "b"))
    split = split_of(data, labeled=0.5, groups=[0, 0, *range(2, 30)])
    write_split(split, data, tmp_path)
    summary = json.loads((tmp_path / "split.json").read_text())
    assert summary["counts"]["train_labeled"] == {
        "images": 12,
        "boxes": 36,
        "images_per_class": {"a": 12, "b": 12},
        "boxes_per_class": {"a": 24, "b": 12},
    }
    assert summary["seed"] == 0 and summary["duplicates"] == [["/set/images/im 0.png", "/set/images/im 1.png"]]


def test_a_split_can_be_given_back_even_from_another_machine(skewed, tmp_path):
    split = split_of(skewed, [0, 0, *range(2, 1000)])
    data_yaml = write_split(split, skewed, tmp_path)
    for source in (tmp_path, data_yaml):
        again = read_split(source, skewed)
        assert [getattr(again, name) for name in LISTS] == [getattr(split, name) for name in LISTS]
        assert again.duplicates == split.duplicates
    moved = dataset(*(Item(Path("/other/images") / i.image.name, i.boxes, i.split) for i in skewed.items))
    assert [path.name for path in read_split(tmp_path, moved).test] == [path.name for path in split.test]


def test_too_few_groups_of_copies_for_all_parts_are_rejected():
    """Twelve images of three scenes: train holds ten, and each scene is too large for val and test."""
    data = dataset(*(item(i, [0, 1, 2, 3]) for i in range(12)))
    with pytest.raises(UserError, match=r"no image is left for val and test in set: .* 3 different images; add images"):
        split_of(data, [i % 3 for i in range(12)], labeled=0.5, ratios=(0.8, 0.1, 0.1))
    apart = split_of(data, labeled=0.5, ratios=(0.8, 0.1, 0.1))
    assert apart.val and apart.test


def test_names_that_repeat_in_two_folders_are_distinguished_by_the_folder(tmp_path):
    items = [item(i % 10, [i % 4], folder=f"images/{'train' if i < 10 else 'test'}") for i in range(20)]
    labeled, unlabeled, val, test = (
        tuple(i.image for i in items[a:b]) for a, b in ((0, 8), (8, 10), (10, 15), (15, 20))
    )
    split = Split(labeled, unlabeled, val, test, duplicates=((items[0].image, items[10].image),))
    write_split(split, dataset(*items), tmp_path)
    moved = [Item(Path("/other", *i.image.parts[2:]), i.boxes, i.split) for i in items]
    again = read_split(tmp_path, dataset(*moved))
    assert again.test == tuple(i.image for i in moved[15:])
    assert again.duplicates == ((moved[0].image, moved[10].image),)
    flat = [Item(Path("/flat") / f"{k}" / i.image.name, i.boxes, i.split) for k, i in enumerate(items)]
    with pytest.raises(UserError, match=r"train_labeled\.txt:1: .*im 0\.png is not in data set"):
        read_split(tmp_path, dataset(*flat))


def test_wrong_lists_are_reported_with_their_line(tmp_path):
    data = dataset(*(item(i, [i % 4]) for i in range(40)), item(40, None))
    paths = [i.image for i in data.items]
    parts = {"train_labeled": paths[:20], "train_unlabeled": paths[20:30], "val": paths[30:35], "test": paths[35:40]}

    def read(**changed):
        write_split(Split(**{k: tuple(v) for k, v in parts.items()}), data, tmp_path)
        for name, lines in changed.items():
            (tmp_path / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        return read_split(tmp_path, data)

    assert len(read().train_labeled) == 20
    with pytest.raises(UserError, match=r"test\.txt:1: /x/unknown\.png is not in data set set"):
        read(test=["/x/unknown.png"])
    with pytest.raises(UserError, match=r"test\.txt:2: .* is also in train_labeled\.txt"):
        read(test=[paths[36], paths[0]])
    with pytest.raises(UserError, match=r"val\.txt:1: .* has no labels"):
        read(val=[paths[40]])
    with pytest.raises(UserError, match=r"val\.txt is empty"):
        read(val=[])
    with pytest.raises(UserError, match="no labeled training image of class 'a'"):
        read(train_labeled=[paths[i] for i in range(20) if i % 4])
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe/\x00")
    with pytest.raises(UserError, match=r"test\.txt cannot be read as a list \('utf-8' codec"):
        read_split(tmp_path, data)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(UserError, match=r"test\.txt does not exist"):
        read_split(tmp_path, data)


GROUPS = [i // 2 * 2 if i < 16 else i for i in range(48)]
# splits that the source gives, options, and what is drawn: numbers of the images of each list
DRAWN = {
    "nothing given": (
        [None],
        {"labeled": 0.4},
        {
            "train_labeled": [0, 1, 3, 19, 20, 21, 24, 26, 29, 32, 34, 36, 38, 39],
            "train_unlabeled": [
                2,
                4,
                5,
                8,
                9,
                10,
                12,
                13,
                14,
                17,
                18,
                22,
                23,
                25,
                27,
                28,
                30,
                31,
                35,
                40,
                *range(42, 47),
            ],
            "val": [7, 15, 33, 47],
            "test": [6, 16, 37, 41],
            "left_out": [11],
        },
    ),
    "a limit, and copies": (
        [None],
        {"labeled": 9, "limit": 30, "seed": 3, "groups": GROUPS, "ratios": (0.6, 0.2, 0.2)},
        {
            "train_labeled": [0, 1, 12, 13, 14, 15, 19, 22, 36],
            "train_unlabeled": [4, 8, 9, 16, 17, 23, 28, 34, 35, 37],
            "val": [6, 7, 29, 44, 47],
            "test": [25, 27, 30, 32, 46],
            "left_out": [5],
        },
    ),
    "val and test given": (
        ["train", "train", "val", "test"],
        {"labeled": 0.5, "seed": 1, "groups": GROUPS},
        {
            "train_labeled": [0, 1, 12, 13, 16, 21, 28, 32, 33, 44, 45],
            "train_unlabeled": [4, 8, 9, 17, 20, 23, 24, 25, 29, 36, 37, 40, 41],
            "val": list(range(2, 48, 4)),
            "test": [3, 7, 15, 19, 27, 31, 35, 39, 43, 47],
            "left_out": [5, 11],
        },
    ),
    "val given, a limit": (
        ["train", "val", "train"],
        {"labeled": 1.0, "limit": 36, "seed": 2},
        {
            "train_labeled": [0, 2, 6, 8, 12, 14, 15, 18, 20, 21, 26, 27, 32, 33, 36, 38, 41, 44, 47],
            "train_unlabeled": [5, 17, 23],
            "val": [4, 10, 13, 16, 19, 22, 28, 31, 34, 37, 40, 43],
            "test": [35, 39],
            "left_out": [],
        },
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_a_seed_draws_what_it_has_always_drawn(case):
    """A finished run can be repeated, and continued, only as long as its seed means the same images."""
    parts, options, expected = DRAWN[case]
    rng = np.random.default_rng(7)
    shares = (0.5, 0.4, 0.3, 0.2)
    items = [
        item(i, [c for c, share in enumerate(shares) if rng.random() < share], parts[i % len(parts)]) for i in range(48)
    ]
    items[5], items[11] = item(5, None), item(11, None, "test")
    items[17], items[23] = item(17, [0, 1], "unlabeled"), item(23, None, "unlabeled")
    split = split_of(dataset(*items), **options)
    assert {name: [int(path.stem[3:]) for path in getattr(split, name)] for name in expected} == expected


def test_old_boxes_among_new_labels_are_reported():
    new, mixed, tested = item(0, [3]), item(1, [3, 1]), item(2, [0], "test")
    data = dataset(new, mixed, tested)
    with pytest.raises(UserError, match=r"im 1\.png: its labels contain the old class 'b' \(id 1\)"):
        check_new_labels(data, [new.image, mixed.image], 3)
    check_new_labels(data, [new.image], 3)
