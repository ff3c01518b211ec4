"""Class thresholds of the published range, for tests that need some."""

from __future__ import annotations

from typing import Any

from dfssd.pseudo_labels.thresholds import ClassThresholds


def class_thresholds(nc: int, **changes: Any) -> ClassThresholds:
    """Thresholds for ``nc`` classes between 0.5 and 0.9 that follow slowly; ``changes`` are the constructor's."""
    return ClassThresholds(nc, **{"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, "decay": 0.99, **changes})
