"""Split into train (labeled and unlabeled), val and test: stratified by class, copies of an image kept together.

:mod:`dfssd.datasets.split_files` writes and reads the lists.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.datasets.copies.family_swaps import Unit, reunited
from dfssd.datasets.records import LabeledImage, LabeledSet
from dfssd.datasets.stratification import stratify
from dfssd.errors import UserError
from dfssd.wording import counted

LISTS = ("train_labeled", "train_unlabeled", "val", "test")


@dataclass(frozen=True)
class Split:
    """Image paths in the four lists.

    Attributes:
        train_labeled: Images whose labels are trained on.
        train_unlabeled: Images whose labels, if known, only serve to evaluate pseudo-labels.
        val: Images for selecting the best epoch.
        test: Images for the final scores.
        seed: Seed of the draw; None if the lists were given.
        duplicates: Groups of copies among the images, each of two or more.
        left_out: Unlabeled images not used: they belong to val or test, or are copies of images that do, or that have
            labels.
    """

    train_labeled: tuple[Path, ...]
    train_unlabeled: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]
    seed: int | None = None
    duplicates: tuple[tuple[Path, ...], ...] = ()
    left_out: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SplitOptions:
    """What to draw.

    Attributes:
        labeled: Share of the train images that keep their labels, a float in (0, 1], or their number, an int; the
            others are unlabeled.
        limit: Use a stratified subset of this many images; None = all.
        ratios: Shares of train, val and test. Those of splits that the source has are left out: with (0.8, 0.1, 0.1)
            and a given test split, a ninth of train becomes val.
        seed: Seed of the draw.
    """

    labeled: float | int
    limit: int | None
    ratios: tuple[float, float, float]
    seed: int


def make_split(
    dataset: LabeledSet[LabeledImage],
    groups: Sequence[int],
    options: SplitOptions,
    *,
    exempt_classes: int = 0,
    drop_copies: bool = True,
    families: Sequence[int] | None = None,
) -> Split:
    """Draw a split.

    Splits of the source are kept; a missing val or test split is drawn from train. Images without known labels and
    those marked "unlabeled" are unlabeled training images, unless they belong to a given val or test split: those can
    neither be evaluated nor trained on.

    Args:
        dataset: The data set.
        groups: Group number of each item (:attr:`dfssd.datasets.copies.duplicates.Copies.groups`); a group is kept
            together, unless splits of the source separate it.
        options: What to draw.
        exempt_classes: Number of leading classes that need no labeled image, such as those known already.
        drop_copies: Leave out unlabeled images that are copies of labeled ones: there is nothing to learn from them.
            Not where a group holds more than copies.
        families: Number of a larger group of each item (:attr:`dfssd.datasets.copies.duplicates.Copies.families`),
            which is kept together as well. The split is that of ``groups`` as far as possible: few families change
            places (:func:`dfssd.datasets.copies.family_swaps.reunited`); if there is no place, families are drawn.

    Raises:
        UserError: Too few images or too few groups of copies for all splits, or a class without a labeled training
            image.
    """
    families = groups if families is None else families
    alike = groups if drop_copies else None
    split = _draw(dataset, groups, families, options, alike) or _draw(dataset, families, families, options, alike)
    assert split is not None, "families drawn as units are never torn"
    check_classes(split, dataset, exempt_classes)
    return split


def _draw(
    dataset: LabeledSet[LabeledImage],
    groups: Sequence[int],
    families: Sequence[int],
    options: SplitOptions,
    alike: Sequence[int] | None,
) -> Split | None:
    """A split of whole groups, and of whole families; None if that is not possible.

    Unlabeled images are left out if their family has an image in val or test, or if a labeled one is ``alike``.
    """
    rng = np.random.default_rng(options.seed)
    units = _limited(dataset, _units(dataset.items, groups), options.limit, rng)
    given = {name: _given(dataset, units, name) for name in ("val", "test")}
    pool = _pool(dataset, units, given["val"] | given["test"])
    features = _features(dataset)
    sizes = _part_sizes(dataset, sum(map(len, pool)), options.ratios, given)
    train, val, test = _distribute(pool, sizes, features, rng)
    n_train = sum(map(len, train))
    wanted = _labeled_count(options.labeled, n_train)
    with_labels, without = _distribute(train, [wanted, n_train - wanted], features, rng, every_class=True)

    drawn = {"train_labeled": with_labels, "train_unlabeled": without, "val": val, "test": test}
    parts = reunited(drawn, families, features)
    if parts is None:
        return None
    held = {name: given[name].union(_flat(parts[name])) for name in given}
    evaluated = {families[i] for i in held["val"] | held["test"]}
    labeled = set() if alike is None else {alike[i] for i in _flat(units) if _is_labeled(dataset.items[i])}
    taken = {i for i in _flat(units) if families[i] in evaluated or (alike is not None and alike[i] in labeled)}
    unlabeled, left_out = _without_labels(dataset, units, taken)
    unlabeled.update(_flat(parts["train_unlabeled"]))
    used = set(_flat(units))

    def paths(indices: Iterable[int]) -> tuple[Path, ...]:
        return tuple(dataset.items[i].image for i in sorted(indices))

    copies = ([i for i in family if i in used] for family in _units(dataset.items, families))
    split = Split(
        train_labeled=paths(_flat(parts["train_labeled"])),
        train_unlabeled=paths(unlabeled),
        val=paths(held["val"]),
        test=paths(held["test"]),
        seed=options.seed,
        duplicates=tuple(paths(family) for family in copies if len(family) > 1),
        left_out=paths(left_out),
    )
    _check_filled(split, dataset, len(units))
    return split


def torn_groups(split: Split, images: Sequence[Path], groups: Sequence[int]) -> int:
    """Number of groups (or families) of copies that are divided between train and val or test.

    Splits drawn by this module never divide one; those of a source or a user can.
    """
    trained, held = {*split.train_labeled, *split.train_unlabeled}, {*split.val, *split.test}
    sides: dict[int, set[bool]] = defaultdict(set)
    for image, group in zip(images, groups, strict=True):
        if image in trained or image in held:
            sides[group].add(image in held)
    return sum(len(found) > 1 for found in sides.values())


def _is_labeled(item: LabeledImage) -> bool:
    return item.known and item.split != "unlabeled"


def _flat(units: Iterable[Unit]) -> Iterable[int]:
    return (i for unit in units for i in unit)


def _units(items: Sequence[LabeledImage], groups: Sequence[int]) -> list[Unit]:
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in zip(range(len(items)), groups, strict=True):
        members[group].append(i)
    return list(members.values())


def _limited(
    dataset: LabeledSet[LabeledImage], units: list[Unit], limit: int | None, rng: np.random.Generator
) -> list[Unit]:
    """All units, or a stratified subset with ``limit`` images."""
    n = len(dataset.items)
    if limit is None or limit >= n:
        return units
    kept, _ = _distribute(units, [limit, n - limit], _features(dataset, splits=True), rng)
    return kept


def _given(dataset: LabeledSet[LabeledImage], units: Iterable[Unit], part: str) -> set[int]:
    """The labeled images that the source has put into ``part`` (val or test)."""
    items = dataset.items
    return {i for i in _flat(units) if _is_labeled(items[i]) and items[i].split == part}


def _pool(dataset: LabeledSet[LabeledImage], units: Iterable[Unit], held: set[int]) -> list[Unit]:
    """The labeled images that are still to be distributed, in their units."""
    free = ([i for i in unit if _is_labeled(dataset.items[i]) and i not in held] for unit in units)
    return [unit for unit in free if unit]


def _part_sizes(
    dataset: LabeledSet[LabeledImage], n: int, ratios: Sequence[float], held: Mapping[str, set[int]]
) -> list[int]:
    """Number of images of train, val and test out of ``n``; 0 for a split that the source has."""
    shares = [ratios[0], 0.0 if held["val"] else ratios[1], 0.0 if held["test"] else ratios[2]]
    sizes = [max(1, round(n * share / sum(shares))) if share else 0 for share in shares[1:]]
    if n - sum(sizes) < 1:
        raise UserError(
            f"only {counted(n, 'labeled image')} for train, val and test in {dataset.name}; label more or raise limit="
        )
    return [n - sum(sizes), *sizes]


def _without_labels(
    dataset: LabeledSet[LabeledImage], units: Iterable[Unit], taken: set[int]
) -> tuple[set[int], set[int]]:
    """Images without labels: those to train on, and those left out: the ``taken`` ones, and those of val or test."""
    train: set[int] = set()
    left_out: set[int] = set()
    for i in _flat(units):
        item = dataset.items[i]
        if not _is_labeled(item):
            (left_out if i in taken or item.split in ("val", "test") else train).add(i)
    return train, left_out


def _features(dataset: LabeledSet[LabeledImage], *, splits: bool = False) -> Callable[[Sequence[int]], np.ndarray]:
    """Function from item indices to numbers of images per class, then defect-free, and with ``splits`` per split."""
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
            raise UserError(
                f"labeled={counted(labeled, 'image')}, but train has {n_train}; pass 1 to {n_train}, or a share (0-1]"
            )
        return labeled
    if not 0 < labeled <= 1:
        raise UserError(f"labeled={labeled} is neither a share in (0, 1] nor a whole number of images; correct it")
    return max(1, round(labeled * n_train))


def _distribute(
    units: Sequence[Unit],
    sizes: Sequence[int],
    features: Callable[[Sequence[int]], np.ndarray],
    rng: np.random.Generator,
    *,
    every_class: bool = False,
) -> list[list[Unit]]:
    """Units (groups of item indices) of each part, stratified; sizes in images."""
    if not units:
        return [[] for _ in sizes]
    table = np.stack([features(unit) for unit in units])
    home = stratify(table, np.array([len(unit) for unit in units]), sizes, rng, every_feature=every_class)
    return [[units[u] for u in np.flatnonzero(home == part).tolist()] for part in range(len(sizes))]


def _check_filled(split: Split, dataset: LabeledSet[LabeledImage], units: int) -> None:
    """Raise :class:`UserError` if a split is empty, since groups of copies are kept together."""
    if empty := [name for name in ("train_labeled", "val", "test") if not getattr(split, name)]:
        raise UserError(
            f"no image is left for {' and '.join(empty)} in {dataset.name}: copies are kept together, which leaves "
            f"{counted(units, 'different image')}; add images, or provide the split yourself"
        )


def check_classes(split: Split, dataset: LabeledSet[LabeledImage], exempt_classes: int) -> None:
    """Raise :class:`UserError` if a class from id ``exempt_classes`` on has no labeled training image.

    A class of a longer list of names that no image shows at all is allowed, unless classes are added to a teacher that
    knows the first ones (``exempt_classes`` above 0): there, each new one is to be learned.
    """
    by_path = {item.image: item for item in dataset.items}
    present = {c for path in split.train_labeled for c in by_path[path].classes}
    missing = [name for i, name in enumerate(dataset.names) if i >= exempt_classes and i not in present]
    if missing:
        anywhere = {dataset.names[c] for item in dataset.items for c in item.classes}
        unknown = [name for name in missing if name not in anywhere]
        if len(unknown) == len(missing) and anywhere and not exempt_classes:
            return
        remedy = (
            f"label some images of it or remove it from the names (no image of {dataset.name} has it)"
            if unknown
            else "raise labeled= or limit=, or label more images of it"
        )
        raise UserError(
            f"no labeled training image of class {', '.join(repr(name) for name in unknown or missing)} among "
            f"{len(split.train_labeled)}; {remedy}"
        )


def check_new_labels(dataset: LabeledSet[LabeledImage], trained: Sequence[Path], known_classes: int) -> None:
    """Check that training labels cover new classes only.

    Boxes of old classes would be ignored silently, since the loss on labels does not cover them.

    Args:
        dataset: Data of the step.
        trained: The labeled training images.
        known_classes: Number of leading classes that the teacher knows.

    Raises:
        UserError: A training image has a box of an old class.
    """
    wanted = set(trained)
    for item in dataset.items:
        if item.image in wanted and (old := sorted(c for c in item.classes if c < known_classes)):
            raise UserError(
                f"{item.image}: its labels contain the old class '{dataset.names[old[0]]}' (id {old[0]}), but "
                "new_only=true trains on the new classes only; remove these boxes, or use new_only=false"
            )
