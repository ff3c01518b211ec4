"""Train (labelled and unlabelled), val and test: stratified by class, with copies of an image on one side."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.datasets.records import LabeledImage, LabeledSet
from dfssd.datasets.stratification import stratify
from dfssd.errors import UserError
from dfssd.files import write_json, write_text, write_yaml

LISTS = ("train_labeled", "train_unlabeled", "val", "test")


@dataclass(frozen=True)
class Split:
    """Image paths of the four lists.

    Attributes:
        train_labeled: Images whose labels are trained on.
        train_unlabeled: Images whose labels, if known, are only used to judge pseudo-labels.
        val: Images for choosing the best epoch.
        test: Images for the final numbers.
        seed: Seed of the draw; None if the lists were given.
        duplicates: Groups of copies among the images, each of two or more.
        left_out: Unlabelled images not used, since they or a copy of them belong to val or test.
    """

    train_labeled: tuple[Path, ...]
    train_unlabeled: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]
    seed: int | None = None
    duplicates: tuple[tuple[Path, ...], ...] = ()
    left_out: tuple[Path, ...] = ()


def make_split(
    dataset: LabeledSet,
    *,
    labeled: float | int,
    limit: int | None,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int,
    groups: Sequence[int],
    learnt: int = 0,
) -> Split:
    """Draw a split.

    Splits that the source gives are kept; a missing val or test part is carved out of train. Images without known
    labels and those marked "unlabeled" are unlabelled training images, unless they belong to a given val or test part:
    those can neither be judged nor be trained on.

    Args:
        dataset: The data set.
        labeled: Share of the train images that keep their labels, a float in (0, 1], or their number, an int.
        limit: Use a stratified subset of so many images; None = all.
        ratios: Shares of train, val and test where the source gives none.
        seed: Seed of the draw.
        groups: Group number of each item (:func:`dfssd.datasets.duplicates.duplicate_groups`); a group is never torn
            apart, except by splits that the source gives.
        learnt: The first classes need no labelled image: they have been learnt before.

    Raises:
        UserError: Too few images, or a class without an image in the labelled part.
    """
    rng = np.random.default_rng(seed)
    units = _units(dataset.items, groups)
    if limit is not None and limit < len(dataset.items):
        keep, _ = _distribute(units, [limit, len(dataset.items) - limit], _features(dataset, splits=True), rng)
        units = keep
    items = [i for unit in units for i in unit]
    held = {
        name: {i for i in items if _is_labeled(dataset.items[i]) and dataset.items[i].split == name}
        for name in ("val", "test")
    }
    pool = [
        [i for i in unit if _is_labeled(dataset.items[i]) and i not in held["val"] and i not in held["test"]]
        for unit in units
    ]
    pool = [unit for unit in pool if unit]
    n = sum(map(len, pool))
    features = _features(dataset)
    shares = [ratios[0], 0.0 if held["val"] else ratios[1], 0.0 if held["test"] else ratios[2]]
    sizes = [0, *(max(1, round(n * share / sum(shares))) if share else 0 for share in shares[1:])]
    sizes[0] = n - sum(sizes)
    if sizes[0] < 1:
        raise UserError(
            f"only {n} labelled images for train, val and test in {dataset.name}; label more or raise limit="
        )
    train, val, test = _distribute(pool, sizes, features, rng)
    held["val"].update(i for unit in val for i in unit)
    held["test"].update(i for unit in test for i in unit)

    n_train = sum(map(len, train))
    wanted = _labeled_count(labeled, n_train)
    with_labels, without = _distribute(train, [wanted, n_train - wanted], features, rng, every_class=True)
    evaluated = {groups[i] for i in held["val"] | held["test"]}
    unlabeled = {i for unit in without for i in unit}
    left_out: set[int] = set()
    for i in items:
        if not _is_labeled(dataset.items[i]):
            held_out = groups[i] in evaluated or dataset.items[i].split in held
            (left_out if held_out else unlabeled).add(i)

    def paths(indices: Iterable[int]) -> tuple[Path, ...]:
        return tuple(dataset.items[i].image for i in sorted(indices))

    split = Split(
        train_labeled=paths(i for unit in with_labels for i in unit),
        train_unlabeled=paths(unlabeled),
        val=paths(held["val"]),
        test=paths(held["test"]),
        seed=seed,
        duplicates=tuple(paths(unit) for unit in units if len(unit) > 1),
        left_out=paths(left_out),
    )
    _check_classes(split, dataset, learnt)
    return split


def write_split(
    split: Split,
    dataset: LabeledSet,
    folder: Path,
    *,
    unit: str = "boxes",
    first: int = 0,
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write the four lists, ``split.json`` and ``data.yaml`` to ``folder``.

    ``data.yaml`` describes the labelled part alone, ready for plain ``yolo train data=``. ``split.json`` is written
    last: where it is, the rest is complete.

    Args:
        split: What to write.
        dataset: The data set, for names and counts.
        folder: Where to.
        unit: What ``classes`` of an image counts, a word for ``split.json``.
        first: The first class that is counted.
        more: Further entries of ``data.yaml``.

    Returns:
        Path of ``data.yaml``.
    """
    for name in LISTS:
        write_text(folder / f"{name}.txt", "".join(f"{path}\n" for path in getattr(split, name)))
    data_yaml = folder / "data.yaml"
    write_yaml(
        data_yaml,
        {
            "train": "train_labeled.txt",
            "val": "val.txt",
            "test": "test.txt",
            **(more or {}),
            "names": dict(enumerate(dataset.names)),
        },
    )
    by_path = {item.image: item for item in dataset.items}
    labels = dict(enumerate(dataset.names[first:], first))
    counts = {}
    for name in LISTS:
        items = [by_path[path] for path in getattr(split, name)]
        images = Counter(c for item in items for c in item.classes)
        units = sum((item.classes for item in items), Counter())
        counts[name] = {
            "images": len(items),
            unit: units.total(),
            "images_per_class": {label: images[i] for i, label in labels.items()},
            f"{unit}_per_class": {label: units[i] for i, label in labels.items()},
        }
    write_json(
        folder / "split.json",
        {
            "dataset": dataset.name,
            "names": list(dataset.names),
            "seed": split.seed,
            "counts": counts,
            "duplicates": [[str(path) for path in group] for group in split.duplicates],
            "left_out": [str(path) for path in split.left_out],
            "skipped": [[str(path), reason] for path, reason in dataset.skipped],
        },
    )
    return data_yaml


def read_split(source: Path, dataset: LabeledSet, learnt: int = 0) -> Split:
    """Read the lists that :func:`write_split` wrote, perhaps on another machine.

    Args:
        source: The folder, or a file in it such as ``data.yaml``.
        dataset: The data set; listed images are found in it by path, else by the name of the file, or of file and
            folder, where that is unique.
        learnt: The first classes need no labelled image.

    Raises:
        UserError: A list is missing, names an unknown image, an image without labels, or one of another list.
    """
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    find = _finder(dataset.items)
    lists: dict[str, tuple[Path, ...]] = {}
    seen: dict[Path, str] = {}
    for name in LISTS:
        file = folder / f"{name}.txt"
        if not file.is_file():
            raise UserError(f"split={source}: {file} does not exist; pass the splits/ folder of an earlier run")
        found = []
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
            if not (line := line.strip()):
                continue
            item = find(line)
            if item is None:
                raise UserError(f"{file}:{number}: {line} is not in data set {dataset.name}; pass the same data= again")
            if item.image in seen:
                raise UserError(f"{file}:{number}: {line} is also in {seen[item.image]}; keep it in one list")
            if not item.known and name != "train_unlabeled":
                raise UserError(f"{file}:{number}: {line} has no labels; move it to train_unlabeled.txt")
            seen[item.image] = f"{name}.txt"
            found.append(item.image)
        lists[name] = tuple(found)
        if not found and name != "train_unlabeled":
            raise UserError(f"{file} is empty; pass the splits/ folder of an earlier run")
    split = Split(
        lists["train_labeled"],
        lists["train_unlabeled"],
        lists["val"],
        lists["test"],
        duplicates=_known_duplicates(folder, find, seen),
    )
    _check_classes(split, dataset, learnt)
    return split


def _finder(items: Sequence[LabeledImage]) -> Callable[[str], LabeledImage | None]:
    """Function from a listed path, perhaps of another machine, to the image that it means, None if there is none."""
    by_path = {str(item.image): item for item in items}
    by_name: dict[str, list[LabeledImage]] = defaultdict(list)
    for item in items:
        by_name[item.image.name].append(item)

    def find(line: str) -> LabeledImage | None:
        *folders, name = line.replace("\\", "/").split("/")
        same = by_name.get(name, [])
        if len(same) > 1:  # names may repeat in the folders of train and test
            same = [item for item in same if folders[-1:] == [item.image.parent.name]]
        return by_path.get(line) or (same[0] if len(same) == 1 else None)

    return find


def _known_duplicates(
    folder: Path, find: Callable[[str], LabeledImage | None], used: Container[Path]
) -> tuple[tuple[Path, ...], ...]:
    try:
        groups = json.loads((folder / "split.json").read_text(encoding="utf-8"))["duplicates"]
    except (OSError, ValueError, KeyError):
        return ()
    found = [[item.image for path in group if (item := find(path)) is not None] for group in groups]
    return tuple(tuple(image for image in group if image in used) for group in found)


def torn_groups(split: Split, images: Sequence[Path], groups: Sequence[int]) -> int:
    """Number of groups of copies of which one part is trained on and another one is in val or test.

    Splits of this module never tear a group apart; those that a source or a user gives can.
    """
    trained, held = {*split.train_labeled, *split.train_unlabeled}, {*split.val, *split.test}
    sides: dict[int, set[bool]] = defaultdict(set)
    for image, group in zip(images, groups, strict=True):
        if image in trained or image in held:
            sides[group].add(image in held)
    return sum(len(found) > 1 for found in sides.values())


def _is_labeled(item: LabeledImage) -> bool:
    return item.known and item.split != "unlabeled"


def _units(items: Sequence[LabeledImage], groups: Sequence[int]) -> list[list[int]]:
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in zip(range(len(items)), groups, strict=True):
        members[group].append(i)
    return list(members.values())


def _features(dataset: LabeledSet, *, splits: bool = False) -> Callable[[Sequence[int]], np.ndarray]:
    """Function from item indices to the number of their images per class, then defect-free and (if asked) per split."""
    nc = len(dataset.names)
    extra = ("train", "val", "test", "unlabeled", None)

    def features(unit: Sequence[int]) -> np.ndarray:
        counts = np.zeros(nc + 1 + (len(extra) + 1 if splits else 0))
        for i in unit:
            item = dataset.items[i]
            if item.known:
                counts[list(item.classes) or [nc]] += 1
            if splits:
                counts[nc + 1 + (extra.index(item.split) if item.known else len(extra))] += 1
        return counts

    return features


def _labeled_count(labeled: float | int, n_train: int) -> int:
    if isinstance(labeled, int) and not isinstance(labeled, bool):
        if not 1 <= labeled <= n_train:
            raise UserError(f"labeled={labeled} images, but train has {n_train}; pass 1 to {n_train}, or a share (0-1]")
        return labeled
    if not 0 < labeled <= 1:
        raise UserError(f"labeled={labeled} is neither a share in (0, 1] nor a whole number of images; correct it")
    return max(1, round(labeled * n_train))


def _distribute(
    units: Sequence[list[int]],
    sizes: Sequence[int],
    features: Callable[[Sequence[int]], np.ndarray],
    rng: np.random.Generator,
    *,
    every_class: bool = False,
) -> list[list[list[int]]]:
    """Units (groups of item indices) of each part, stratified; sizes in images."""
    if not units:
        return [[] for _ in sizes]
    table = np.stack([features(unit) for unit in units])
    home = stratify(table, np.array([len(unit) for unit in units]), sizes, rng, every_feature=every_class)
    return [[units[u] for u in np.flatnonzero(home == part).tolist()] for part in range(len(sizes))]


def _check_classes(split: Split, dataset: LabeledSet, learnt: int) -> None:
    by_path = {item.image: item for item in dataset.items}
    present = {c for path in split.train_labeled for c in by_path[path].classes}
    missing = [name for i, name in enumerate(dataset.names) if i >= learnt and i not in present]
    if missing:
        anywhere = {dataset.names[c] for item in dataset.items for c in item.classes}
        unknown = [name for name in missing if name not in anywhere]
        remedy = (
            f"label some images of it or take it out of the names (no image of {dataset.name} has it)"
            if unknown
            else "raise labeled= or limit=, or label more images of it"
        )
        raise UserError(
            f"no labelled training image of class {', '.join(repr(name) for name in unknown or missing)} among "
            f"{len(split.train_labeled)}; {remedy}"
        )
