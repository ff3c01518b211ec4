"""The masks that a configuration asks for: the data set, its twins, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfssd.config import Config
from dfssd.datasets.copies.known import find_twins_once
from dfssd.datasets.copies.twins import Leak, find_leaks, twin_groups
from dfssd.datasets.masks.loading import load_masks
from dfssd.datasets.masks.splits import grouped_split, has_official_split, official_split, read_mask_split
from dfssd.datasets.records import MaskSet
from dfssd.datasets.splits import Split
from dfssd.results.sections import SplitKind
from dfssd.runs.data import DRAWN, check_split_is_exclusive, class_names, split_options


@dataclass(frozen=True)
class Selection:
    """A data set and its split.

    Attributes:
        dataset: The data set.
        split: Its parts.
        kind: ``official``, ``grouped`` or ``given``.
        groups: Group number of each image of the data set; twins of twins share one.
        repeated: Images that are copies of another one, in any of eight poses or partial.
        test_leaks: Test images that have a twin in train or val.
        val_leaks: Validation images that have a twin in train.
    """

    dataset: MaskSet
    split: Split
    kind: SplitKind
    groups: list[int]
    repeated: int
    test_leaks: list[Leak]
    val_leaks: list[Leak]


def read_data(config: Config) -> MaskSet:
    """The data set of ``data=``, imported as the configuration asks.

    Raises:
        UserError: It cannot be read, or something in it is wrong.
    """
    return load_masks(
        config["data"],
        Path(config["data_dir"]),
        unlabeled=config["unlabeled"],
        names=class_names(config),
        skip_bad=config["skip_bad"],
        exclude=[Path(config["project"])],
    )


def select(config: Config) -> Selection:
    """Read the data set of ``data=``, find its twins, and split it as ``split=`` asks.

    Raises:
        UserError: The data cannot be read, or the split does not fit it.
    """
    dataset = read_data(config)
    return select_from(config, dataset, twins_among(config, dataset))


def twins_among(config: Config, dataset: MaskSet) -> list[tuple[int, int]]:
    """Pairs of items of a data set that show the same metal, looked for once.

    Raises:
        UserError: An image cannot be read any more.
    """
    images, known = [item.image for item in dataset.items], [item.known for item in dataset.items]
    return find_twins_once(images, known, Path(config["data_dir"]))


def select_from(config: Config, dataset: MaskSet, twins: Sequence[tuple[int, int]]) -> Selection:
    """Split a data set as ``split=`` asks.

    Without ``split=`` the parts of the source count if it has a val or test part, else images are drawn in groups.

    Args:
        config: Resolved configuration.
        dataset: The data set.
        twins: Pairs of its items that show the same metal (:func:`dfssd.datasets.copies.twins.find_twins`).

    Raises:
        UserError: The split does not fit the data.
    """
    images = [item.image for item in dataset.items]
    groups = twin_groups(len(images), twins)
    split, kind = _choose_split(config, dataset, groups)
    trained = [*split.train_labeled, *split.train_unlabeled]
    return Selection(
        dataset,
        split,
        kind,
        groups,
        repeated=len(images) - len(set(groups)),
        test_leaks=find_leaks(split.test, [*trained, *split.val], images, twins),
        val_leaks=find_leaks(split.val, trained, images, twins),
    )


def _choose_split(config: Config, dataset: MaskSet, groups: Sequence[int]) -> tuple[Split, SplitKind]:
    setting = config["split"]
    if setting is None:
        setting = "official" if has_official_split(dataset) else "grouped"
    if setting not in DRAWN:
        check_split_is_exclusive(config)
        return read_mask_split(Path(setting), dataset), "given"
    draw = official_split if setting == "official" else grouped_split
    return draw(dataset, groups, split_options(config)), setting
