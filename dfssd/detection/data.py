"""The data that a configuration asks for: the data set and its split."""

from __future__ import annotations

from pathlib import Path

from dfssd.config import GROWN, Config
from dfssd.datasets.copies.duplicates import Copies
from dfssd.datasets.copies.known import find_copies_once
from dfssd.datasets.formats import load_dataset
from dfssd.datasets.preprocessing import Preprocess
from dfssd.datasets.records import DetectionSet
from dfssd.datasets.split_files import read_split
from dfssd.datasets.splits import Split, make_split
from dfssd.runs.data import check_split_is_exclusive, class_names, import_settings, split_options


def read_data(config: Config) -> DetectionSet:
    """The data set of ``data=``, imported as the configuration asks.

    Raises:
        UserError: It cannot be read, or something in it is wrong.
    """
    return load_dataset(
        config["data"],
        Path(config["data_dir"]),
        unlabeled=config["unlabeled"],
        names=class_names(config),
        labels=config["labels"],
        resize_labels=config["resize_labels"],
        skip_bad=config["skip_bad"],
        missing_label=config["missing_label"],
        preprocess=Preprocess(**config.section("preprocess")),
        exclude=[Path(config["project"])],
        keep_unused=config["student_training"] == GROWN,
    )


def choose_split(config: Config, dataset: DetectionSet, copies: Copies, known_classes: int = 0) -> Split:
    """The split of ``split=``, or a new one.

    Args:
        config: Resolved configuration.
        dataset: The data set.
        copies: Copies among the images; they stay together.
        known_classes: Number of the first classes, which need no labeled image.

    Raises:
        UserError: The lists do not fit the data set, other arguments also choose images, or a part would be empty.
    """
    if config["split"]:
        check_split_is_exclusive(config)
        return read_split(Path(config["split"]), dataset, known_classes, imported=import_settings(config))
    return make_split(
        dataset, copies.groups, split_options(config), exempt_classes=known_classes, families=copies.families
    )


def copies_among(config: Config, dataset: DetectionSet) -> Copies:
    """Copies among the images of a data set, looked for once.

    Raises:
        UserError: An image cannot be read any more.
    """
    return find_copies_once([item.image for item in dataset.items], Path(config["data_dir"]))
