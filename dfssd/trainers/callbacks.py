"""Callbacks of a training: whose they are, and which of Ultralytics' own have no part in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

FIRST = "on_pretrain_routine_start"
"""The first event of a training, with which Ultralytics' loggers begin their runs."""

_LOGGERS = frozenset(f"ultralytics.utils.callbacks.{name}" for name in ("tensorboard", "mlflow", "wb"))
"""Modules of the loggers that ``track=`` takes the place of."""


def without_loggers(callbacks: Mapping[str, list[Callable[..., Any]]]) -> None:
    """Take Ultralytics' own loggers out of the callbacks of a trainer."""
    for found in callbacks.values():
        found[:] = [callback for callback in found if callback.__module__ not in _LOGGERS]


def top_package(function: Any) -> str:
    """The package that a function comes from."""
    return str(function.__module__).partition(".")[0]
