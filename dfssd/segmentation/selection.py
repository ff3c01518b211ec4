"""Which masks a configuration asks for: the data set, its twins, and its split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfssd.config import Config
from dfssd.datasets.selection import check_split_alone
from dfssd.datasets.splits import Split
from dfssd.segmentation.leaks import Leak, find_leaks, find_twins, twin_groups
from dfssd.segmentation.masks import MaskSet, load_masks
from dfssd.segmentation.splits import grouped_split, official_split, read_mask_split


@dataclass(frozen=True)
class Selection:
    """A data set, divided.

    Attributes:
        dataset: The data set.
        split: Its parts.
        kind: ``official``, ``grouped`` or ``given``.
        repeated: Images that repeat another one, in any of eight poses or in part.
        test_leaks: Test images that have a twin in train or val.
        val_leaks: Validation images that have a twin in train.
    """

    dataset: MaskSet
    split: Split
    kind: str
    repeated: int
    test_leaks: list[Leak]
    val_leaks: list[Leak]


def select(config: Config) -> Selection:
    """Read the data set of ``data=``, find its twins, and divide it as ``split=`` says.

    Without ``split=`` the parts of the source count if it has a val or test part, else images are drawn in groups.

    Raises:
        UserError: The data cannot be read, or the split does not fit it.
    """
    unlabeled, names = config["unlabeled"], config["names"]
    dataset = load_masks(
        config["data"],
        Path(config["data_dir"]),
        unlabeled=unlabeled,
        names=[names] if isinstance(names, str) else names,
        skip_bad=config["skip_bad"],
    )
    images = [item.image for item in dataset.items]
    twins = find_twins(images)
    groups = twin_groups(len(images), twins)
    split, kind = _divide(config, dataset, groups)
    trained = [*split.train_labeled, *split.train_unlabeled]
    return Selection(
        dataset,
        split,
        kind,
        repeated=len(images) - len(set(groups)),
        test_leaks=find_leaks(split.test, [*trained, *split.val], images, twins),
        val_leaks=find_leaks(split.val, trained, images, twins),
    )


def _divide(config: Config, dataset: MaskSet, groups: Sequence[int]) -> tuple[Split, str]:
    asked = config["split"]
    if asked is None:
        parted = any(item.known and item.split in {"val", "test"} for item in dataset.items)
        asked = "official" if parted else "grouped"
    if asked not in {"official", "grouped"}:
        check_split_alone(config)
        return read_mask_split(Path(asked), dataset), "given"
    draw = official_split if asked == "official" else grouped_split
    return (
        draw(
            dataset,
            groups,
            labeled=config["labeled"],
            limit=config["limit"],
            ratios=tuple(config["split_ratio"]),
            seed=config.seed,
        ),
        asked,
    )
