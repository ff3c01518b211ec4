"""Checks of any run before anything is computed: device, precision and export formats."""

from __future__ import annotations

from dfssd.config import Config
from dfssd.evaluation.export import check_formats
from dfssd.hardware import check_device, check_free_memory, resolve_amp


def check_machine(config: Config) -> None:
    """Raise :class:`UserError` for a device, precision or export format that cannot be used on this machine."""
    device = check_device(config.train.get("device"))
    check_free_memory(device)
    resolve_amp(config.train.get("amp"), device)
    check_formats(config.formats)
