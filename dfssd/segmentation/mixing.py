"""Rectangles of unlabeled images pasted into each other, with the teacher's soft masks of them (CutMix).

The teacher answers for whole images. The student then sees images x_i and x_j as one, and is to answer as the teacher
did for each of them:

    x = m x_j + (1 - m) x_i,     z_T = m z_T(x_j) + (1 - m) z_T(x_i),     m = 1 in a rectangle, 0 outside of it

so that it cannot go by the surroundings of a pixel alone, and that a small pool of images gives many. CutMix: Yun et
al., arXiv:1905.04899; with a teacher's masks: French et al., arXiv:1906.01916.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfssd.loading.pixels import to_device

AREA = (0.1, 0.5)
"""Smallest and largest rectangle, as a share of the image."""

ASPECT = 2.0
"""Largest ratio of its sides, either way, as a share of those of the image."""

MIXED = ("img", "kd_pixels", "teacher_logits")
"""Fields of a batch that belong to the pixels of an unlabeled image; its mask and its distance maps are the same
everywhere."""


@dataclass(frozen=True)
class Pasted:
    """Rectangles for n images.

    Attributes:
        source: The image that each rectangle shows, (n,) int64.
        rows: First row, and first one below it, (n, 2) int64 [px]; equal for an image that stays as it is.
        columns: The same to the right, (n, 2) int64 [px].
    """

    source: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def draw(rng: np.random.Generator, n: int, shape: tuple[int, int], probability: float) -> Pasted:
    """Rectangles of random place, size (:data:`AREA`) and shape (:data:`ASPECT`), each from another one of the images.

    Args:
        rng: Source of the random numbers.
        n: Images; with a single one, nothing is pasted.
        shape: Their height and width [px].
        probability: That an image gets a rectangle, in [0, 1].
    """
    numbers = np.arange(n)
    source = (numbers + rng.integers(1, max(n, 2), n)) % n
    area, aspect = rng.uniform(*AREA, n), np.exp(rng.uniform(-1, 1, n) * math.log(ASPECT))
    hit = (rng.random(n) < probability) & (source != numbers)
    sides = []
    for length, share in zip(shape, (np.sqrt(area * aspect), np.sqrt(area / aspect))):
        side = np.rint(length * share).astype(np.int64)
        first = rng.integers(0, length - side + 1)
        sides.append(np.stack([first, first + side * hit], 1))
    return Pasted(source, *sides)


def paste(batch: Mapping[str, Any], pasted: Pasted) -> dict[str, Any]:
    """A batch whose last n images, the unlabeled ones, have got their rectangles.

    Args:
        batch: ``img`` (N, 3, H, W), ``kd_pixels`` (N, H, W) bool, ``teacher_logits`` (N, nc, H, W), and other fields,
            which stay as they are.
        pasted: For the last n <= N images; n >= 1.

    Returns:
        The batch; its new tensors have the layout of the given ones.
    """
    n, device = len(pasted.source), batch["img"].device
    source, rows, columns = to_device([pasted.source, pasted.rows, pasted.columns], device)
    height, width = batch["img"].shape[2:]
    inside = _between(rows, height)[:, :, None] & _between(columns, width)[:, None, :]
    mixed = dict(batch)
    for name in MIXED:
        whole = batch[name]
        own = whole[-n:]
        where = inside if whole.dim() == inside.dim() else inside[:, None]
        mixed[name] = torch.cat([whole[:-n], torch.where(where, own.index_select(0, source), own)])
        if whole.dim() == 4 and not whole.is_contiguous():
            mixed[name] = mixed[name].contiguous(memory_format=torch.channels_last)
    return mixed


def _between(ends: Tensor, length: int) -> Tensor:
    """(n, length) bool: the positions from the first number of each row of ``ends`` (n, 2) up to the second."""
    places = torch.arange(length, device=ends.device)
    return (places >= ends[:, :1]) & (places < ends[:, 1:])
