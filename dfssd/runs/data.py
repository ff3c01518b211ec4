"""Settings of the data that all tasks share: class names and split."""

from __future__ import annotations

from pathlib import Path

from dfssd.config import SEMANTIC, Config, defaults, section_of
from dfssd.datasets.importing import as_list
from dfssd.datasets.split_files import list_files
from dfssd.datasets.splits import SplitOptions
from dfssd.errors import UserError
from dfssd.log import LOGGER

_OF_LABELS = ("missing_label", "labels", "resize_labels")
"""Keys outside of ``preprocess`` that decide which boxes an image gets."""

DRAWN = ("official", "grouped")
"""Values of ``split`` that draw the split of masks; others name the lists of an earlier run."""


def class_names(config: Config) -> list[str] | None:
    """The class names of ``names=``, if any."""
    return None if config["names"] is None else as_list(config["names"])


def split_options(config: Config) -> SplitOptions:
    """How to draw the split."""
    labeled = config["labeled"]
    if labeled == 1 and isinstance(labeled, int):
        LOGGER.warning("labeled=1 keeps the labels of one image; labeled=1.0 keeps those of all")
    train, val, test = config["split_ratio"]
    return SplitOptions(labeled, config["limit"], (train, val, test), config.seed)


def check_split_is_exclusive(config: Config) -> None:
    """Raise :class:`UserError` if ``labeled`` or ``limit`` is given along with ``split``, which selects the images."""
    if clash := {"labeled", "limit"} & set(config.given):
        raise UserError(f"split={config['split']} already selects the images; leave out {', '.join(sorted(clash))}")


def check_split(config: Config) -> None:
    """Raise :class:`UserError` if ``split`` names no lists, or other arguments select images, too."""
    setting = config["split"]
    if setting is not None and not (config["task"] == SEMANTIC and setting in DRAWN):
        check_split_is_exclusive(config)
        list_files(Path(setting))


def import_settings(config: Config) -> str:
    """The settings of the import that change pixels or boxes, as text; empty if all of them have their defaults."""
    usual = defaults()
    keys = (key for key in usual if section_of(key) == "preprocess" or key in _OF_LABELS)
    return " ".join(f"{key}={config[key]}" for key in keys if config[key] != usual[key])
