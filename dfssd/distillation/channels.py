"""Which channels of a wide layer a narrow one holds that was made from it by weight selection (arXiv:2311.18823)."""

from __future__ import annotations

import torch
from torch import Tensor


def held_channels(narrow: int, wide: int) -> Tensor:
    """Channel floor(i * wide / narrow) of the wide layer for each channel i of the narrow one: evenly spaced.

    Args:
        narrow: Channels of the narrow layer, 1 to ``wide``.
        wide: Channels of the wide layer.

    Returns:
        Rising numbers, (narrow,) int64.
    """
    return torch.arange(narrow) * wide // narrow
