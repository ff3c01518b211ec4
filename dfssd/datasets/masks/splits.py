"""The two splits of a data set with masks: official, for comparison with papers, and grouped, without leaks.

Both are drawn by :func:`dfssd.datasets.splits.make_split`, stratified by the classes that occur in an image (images
free of defects are a class of their own), and keep a group of twins together unless the source has split it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dfssd.datasets.masks.descriptions import MASKS_DIR
from dfssd.datasets.records import MaskSet
from dfssd.datasets.split_files import read_split, write_split
from dfssd.datasets.splits import Split, SplitOptions, make_split
from dfssd.errors import UserError

_BACKGROUNDS = 1
"""Number of leading classes that need no training image: every image shows the background."""


def has_official_split(dataset: MaskSet) -> bool:
    """Whether the source has a val or test split with masks."""
    return any(item.known and item.split in {"val", "test"} for item in dataset.items)


def official_split(dataset: MaskSet, groups: Sequence[int], options: SplitOptions) -> Split:
    """Train, val and test as in the source; one that it lacks is drawn from train.

    Twins that the source has put into different splits stay there:
    :func:`dfssd.datasets.copies.twins.find_leaks` lists them. A val split drawn from train shares no twins with it.

    Args:
        dataset: The data set.
        groups: Group number of each item (:func:`dfssd.datasets.copies.twins.twin_groups`).
        options: What to draw.

    Raises:
        UserError: The source has neither val nor test, there are too few images, or a class has no labeled training
            image.
    """
    if not has_official_split(dataset):
        raise UserError(f"{dataset.name} has no official val or test split; pass split=grouped to draw them")
    return make_split(dataset, groups, options, exempt_classes=_BACKGROUNDS, drop_copies=False)


def grouped_split(dataset: MaskSet, groups: Sequence[int], options: SplitOptions) -> Split:
    """Train, val and test drawn anew, each group of twins in one of them; the splits of the source are ignored.

    All images of a group are kept, in test as well. Unlabeled images stay unlabeled, and are left out if they have a
    twin in val or test. The ratios are met as closely as groups of several images allow.

    Args:
        dataset: The data set.
        groups: Group number of each item (:func:`dfssd.datasets.copies.twins.twin_groups`).
        options: What to draw.

    Raises:
        UserError: Too few images, or a class without a labeled training image.
    """
    items = tuple(item if item.split == "unlabeled" else replace(item, split=None) for item in dataset.items)
    return make_split(
        MaskSet(dataset.name, dataset.names, items, dataset.skipped),
        groups,
        options,
        exempt_classes=_BACKGROUNDS,
        drop_copies=False,
    )


def write_mask_split(split: Split, dataset: MaskSet, folder: Path) -> Path:
    """Write the four lists, ``split.json`` and ``data.yaml`` to ``folder``, as for boxes; return ``data.yaml``.

    ``data.yaml`` names the folder of the masks, ready for plain ``yolo semantic train data=``; ``split.json`` counts
    images and pixels of each defect class.
    """
    return write_split(split, dataset, folder, unit="pixels", first=_BACKGROUNDS, more={"masks_dir": MASKS_DIR})


def read_mask_split(source: Path, dataset: MaskSet) -> Split:
    """Read the lists that :func:`write_mask_split` wrote, perhaps on another machine.

    Args:
        source: The folder, or a file in it such as ``data.yaml``.
        dataset: The data set; a listed image is found in it by path, else by the names of its folder and file.

    Raises:
        UserError: A list is missing, names an unknown image, an image without mask, or one of another list.
    """
    return read_split(source, dataset, exempt_classes=_BACKGROUNDS)
