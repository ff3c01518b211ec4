"""The two splits of a data set with masks: the official one, to compare, and the grouped one, to know.

Both are drawn by :func:`dfssd.datasets.splits.make_split`, stratified by the classes that occur in an image (images
free of defects are a class of their own), and never tear apart a group of twins that is theirs to place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dfssd.datasets.mask_folders import MASKS_DIR
from dfssd.datasets.records import MaskSet
from dfssd.datasets.split_files import read_split, write_split
from dfssd.datasets.splits import Split, SplitOptions, make_split
from dfssd.errors import UserError

_BACKGROUNDS = 1
"""Classes, from id 0 on, that need no training image: every image shows the background."""


def has_official_split(dataset: MaskSet) -> bool:
    """Whether the source has a val or a test part with masks."""
    return any(item.known and item.split in {"val", "test"} for item in dataset.items)


def official_split(dataset: MaskSet, groups: Sequence[int], options: SplitOptions) -> Split:
    """Train, val and test as the source has them; a part that it lacks is drawn from train.

    Twins that the source itself has put on two sides stay there: :func:`dfssd.datasets.twins.find_leaks` names them.
    Between train and a val part drawn from it there are none.

    Args:
        dataset: The data set.
        groups: Group number of each item (:func:`dfssd.datasets.twins.twin_groups`).
        options: What to draw.

    Raises:
        UserError: The source has neither a val nor a test part, there are too few images, or a class is without an
            image in the labeled part.
    """
    if not has_official_split(dataset):
        raise UserError(f"{dataset.name} has no val or test part of its own; pass split=grouped to draw them")
    return make_split(dataset, groups, options, learned=_BACKGROUNDS)


def grouped_split(dataset: MaskSet, groups: Sequence[int], options: SplitOptions) -> Split:
    """Train, val and test drawn anew, each group of twins on one side; the parts of the source count for nothing.

    All images of a group are kept, in test as well. Unlabeled images stay so, and are left out if they have a twin in
    val or test. The shares of the parts are met as closely as groups of several images allow.

    Args:
        dataset: The data set.
        groups: Group number of each item (:func:`dfssd.datasets.twins.twin_groups`).
        options: What to draw.

    Raises:
        UserError: Too few images, or a class without an image in the labeled part.
    """
    items = tuple(item if item.split == "unlabeled" else replace(item, split=None) for item in dataset.items)
    return make_split(
        MaskSet(dataset.name, dataset.names, items, dataset.skipped), groups, options, learned=_BACKGROUNDS
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
        dataset: The data set; a listed image is found in it by path, else by the names of its part and file.

    Raises:
        UserError: A list is missing, names an unknown image, an image without mask, or one of another list.
    """
    return read_split(source, dataset, learned=_BACKGROUNDS)
