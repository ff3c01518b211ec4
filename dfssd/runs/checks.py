"""Checks of any run before anything is computed: device, memory, precision, export formats and frozen layers."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from dfssd.config import KEYS, Config
from dfssd.config.schema import TRAINED_TEACHER
from dfssd.errors import UserError
from dfssd.evaluation.export_formats import check_formats
from dfssd.hardware import check_batch_fits, check_device, check_free_memory, resolve_amp
from dfssd.log import LOGGER


def check_machine(config: Config) -> None:
    """Raise :class:`UserError` for a device, batch, precision or export format that cannot be used on this machine."""
    device = check_device(config.train.get("device"))
    check_free_memory(device)
    check_batch_fits(config.batch, config.imgsz, device)
    resolve_amp(config.train.get("amp"), device)
    check_formats(config.formats, task=config["task"], device=device)


def tell_idle_keys(config: Config, *, used_teacher: bool, unlabeled: int) -> None:
    """Name the keys of the line that the data leave without effect, once it has been read.

    Args:
        config: Resolved configuration.
        used_teacher: The teacher knows the classes of the data, and is not trained.
        unlabeled: Number of unlabeled images.
    """
    given = {name: key for name, key in KEYS.items() if name in config.given and config[name]}
    idle = [name for name, key in given.items() if used_teacher and TRAINED_TEACHER in key.needs]
    if idle:
        LOGGER.warning(f"{', '.join(idle)}: no effect, since the teacher is used as it is (see teacher_train=)")
    # the rule for pseudo boxes may be needed for labeled images, too
    of_unlabeled = (name for name, key in given.items() if key.unlabeled)
    idle = [name for name in of_unlabeled if not (config["old_boxes"] and name.startswith("pseudo."))]
    if idle and not unlabeled:
        LOGGER.warning(f"{', '.join(idle)}: no effect, since there are no unlabeled images")


def check_freeze(freeze: Any, model: str, parameters: Collection[str]) -> None:
    """Check that ``freeze`` names parts of a network, and leaves some that can be trained.

    Args:
        freeze: The first layers (a number), or layer numbers and parts such as ``22.cv2`` (a list); None: nothing.
        model: The network, for the message, such as ``student=yolov8n.pt``.
        parameters: Names of its parameters.

    Raises:
        UserError: A layer or part does not exist, or nothing is left to train.
    """
    if not freeze:
        return
    numbers = {int(match[1]) for name in parameters if (match := re.match(r"model\.(\d+)\.", name))}
    layers = max(numbers, default=-1) + 1

    def holds(part: int | str) -> bool:  # layers without parameters count, too
        return any(f"model.{part}." in name for name in parameters) or (isinstance(part, int) and part < layers)

    parts = range(freeze) if isinstance(freeze, int) else freeze
    if unknown := [part for part in parts if not holds(part)]:
        raise UserError(f"freeze={freeze}: {model} has layers 0 to {layers - 1}, and no {unknown[0]}; leave that out")
    if all(any(f"model.{part}." in name for part in parts) or ".dfl" in name for name in parameters):
        raise UserError(f"freeze={freeze} leaves nothing to train in {model}, which has layers 0 to {layers - 1}")
