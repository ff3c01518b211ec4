"""``plan.json``: all that the labels depend on, decided once; a later call goes on with the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfssd.errors import UserError
from dfssd.files import from_here
from dfssd.pseudo_labels.thresholds import ClassThresholds

PLAN = "plan.json"

_PARTS = {"schema", "images", "names", "thresholds", "sample", "settings", "listing", "state"}


def is_whole(plan: Mapping[str, Any]) -> bool:
    """Whether a plan has all its parts."""
    try:
        ClassThresholds.from_state(plan["state"])
        return set(plan) >= _PARTS and isinstance(plan["settings"], dict)
    except (KeyError, TypeError, ValueError):
        return False


def check_same(plan: Mapping[str, Any], settings: Mapping[str, Any], out: Path) -> None:
    """Refuse to go on with other settings.

    Raises:
        UserError: Some differ.
    """
    then = plan["settings"]
    changed = [key for key in settings if key not in then or then[key] != settings[key]]
    if changed:
        told = ", ".join(
            key.removesuffix("s") if key in {"models", "val"} else f"{key}={then.get(key)}, now {settings[key]}"
            for key in changed
        )
        raise UserError(f"{from_here(out)} was begun with other settings ({told}): give the same, or another out=")
