"""How large a difference between two networks must be before it is called one."""

from __future__ import annotations

import math

CHANCE = 0.01
"""Difference in mAP50-95, or in mean IoU, that another seed alone can make, however many images there are."""


def noise_of(instances: int | None) -> float:
    """Difference in mAP50-95 that is not called a difference: max(0.01, 0.5 / sqrt(n)) for n defects.

    The second one is the standard error of a share near one half counted on n independent cases: 0.016 for 1,000
    defects, 0.05 for 100.

    Args:
        instances: Number of true defects that the two were measured on; None or 0 if it is not known.
    """
    return max(CHANCE, 0.5 / math.sqrt(instances)) if instances else CHANCE
