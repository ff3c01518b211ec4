"""What a configuration says about data, whatever the task: names of the classes, and what to draw."""

from __future__ import annotations

from dfssd.config import Config
from dfssd.datasets.importing import several
from dfssd.datasets.splits import SplitOptions
from dfssd.errors import UserError


def class_names(config: Config) -> list[str] | None:
    """The class names of ``names=``, if any."""
    return None if config["names"] is None else several(config["names"])


def split_options(config: Config) -> SplitOptions:
    """What a configuration asks to draw."""
    train, val, test = config["split_ratio"]
    return SplitOptions(config["labeled"], config["limit"], (train, val, test), config.seed)


def check_split_alone(config: Config) -> None:
    """Raise :class:`UserError` if another argument, too, says which images are used."""
    if clash := {"labeled", "limit"} & set(config.given):
        raise UserError(f"split={config['split']} says which images are used; leave out {', '.join(sorted(clash))}")
