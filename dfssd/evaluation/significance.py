"""How large a difference between two networks must be to count as one."""

from __future__ import annotations

import math

CHANCE = 0.01
"""Difference in mAP50-95, or in mean IoU, that another seed alone can cause, however many images there are."""


def noise_of(instances: int | None) -> float:
    """Difference in mAP50-95 that counts as noise: max(0.01, 0.5 / sqrt(n)) for n defects.

    The second term is the standard error of a proportion near one half estimated from n independent cases: 0.016 for
    1,000 defects, 0.05 for 100.

    Args:
        instances: Number of true defects that the two were evaluated on; None or 0 if it is not known.
    """
    return max(CHANCE, 0.5 / math.sqrt(instances)) if instances else CHANCE
