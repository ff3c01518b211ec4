"""The losses of an epoch, kept on the device and read by the host now and then.

Ultralytics updates the mean of each loss with three operators a batch and formats all means for its progress bar: on a
GPU the host waits for the device once for each loss in every batch, and cannot launch the next one meanwhile. Here a
batch writes its losses into one row of a table on the device; the host reads many rows at once and takes the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

READ_EVERY = 50
"""Batches between two looks at the losses on a device that the host would have to wait for."""


COLUMN = 11
"""Width of Ultralytics' columns of losses."""

HOST = "cpu"
"""Device whose values need no waiting."""


class LossRecord:
    """Losses of the batches of one epoch after another.

    Attributes:
        batches: Batches of the epoch so far.
        not_finite: Number of batches, from the newest one back, to the first in which a loss was not finite: 0 for the
            newest one. None if all were finite, as far as they have been read.
    """

    def __init__(self, read_every: int = READ_EVERY):
        """Start empty.

        Args:
            read_every: Rows of the table: batches after which it is read at the latest.
        """
        self.read_every = read_every
        self._table: Tensor | None = None
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forget the epoch before."""
        self.batches = self._unread = 0
        self.not_finite: int | None = None
        self._sums: dict[str, float] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Write the losses of a batch: scalars on one device, always of the same names."""
        if list(losses) != list(self._sums):
            self._sums = dict.fromkeys(losses, 0.0)
        values = [value.detach().reshape(()).float() for value in losses.values()]
        if self._table is None or self._table.shape[1] != len(values) or self._table.device != values[0].device:
            self._table = torch.zeros(self.read_every, len(values), device=values[0].device)
        torch.stack(values, out=self._table[self._unread])
        self.batches += 1
        self._unread += 1
        if self._unread == self.read_every:
            self.read()

    def read(self) -> None:
        """Wait for the device, and take what it has written into the means."""
        if not self._unread:
            return
        assert self._table is not None
        rows = self._table[: self._unread].tolist()
        if self.not_finite is not None:
            self.not_finite += self._unread
        for back, row in zip(reversed(range(len(rows))), rows, strict=True):
            for name, value in zip(self._sums, row, strict=True):
                self._sums[name] += value
            if self.not_finite is None and not all(map(math.isfinite, row)):
                self.not_finite = back
        self._unread = 0

    def share(self, total: Callable[[np.ndarray], np.ndarray], processes: int) -> None:
        """Take the mean over the processes of a training, which have made as many batches each.

        Args:
            total: Sum of an array over the processes.
            processes: Their number.
        """
        self.read()
        sums = total(np.array(list(self._sums.values()))) / processes
        self._sums = dict(zip(self._sums, sums.tolist(), strict=True))

    @property
    def means(self) -> dict[str, float]:
        """Mean of each loss over the batches of the epoch that have been read."""
        read = max(1, self.batches - self._unread)
        return {name: total / read for name, total in self._sums.items()}


def heading(names: Sequence[str]) -> str:
    """Names of columns, right-aligned in Ultralytics' width, in as many lines as the longest needs.

    A name is folded behind its underscores, so that ``response_cls`` takes two lines; what is longer without one is
    folded anywhere.
    """
    folded = [_fold(name, COLUMN - 1) for name in names]
    height = max(map(len, folded))
    lines = zip(*([""] * (height - len(parts)) + parts for parts in folded), strict=True)
    return "\n".join("".join(part.rjust(COLUMN) for part in line).rstrip() for line in lines)


def _fold(name: str, width: int) -> list[str]:
    """Pieces of a name, none longer than ``width``."""
    if len(name) <= width:
        return [name]
    cut = name.rfind("_", 0, width) + 1 or width
    return [name[:cut], *_fold(name[cut:], width)]


class _Mean(float):
    """A mean that is up to date: ``(mean * i + loss) / (i + 1)``, Ultralytics' update of it, launches nothing.

    To everyone else it is a number: only the sum of a multiple of it and a tensor is not one.
    """

    def __mul__(self, count: float) -> float:
        return _Multiple(self, count)


class _Multiple(float):
    """``mean * i``."""

    def __new__(cls, mean: _Mean, count: float) -> _Multiple:
        product = super().__new__(cls, float(mean) * count)
        product.mean = mean
        return product

    mean: _Mean

    def __add__(self, other: Any) -> Any:
        return _Update(self.mean) if isinstance(other, Tensor) else float(self) + other


class _Update(NamedTuple):
    """``mean * i + loss``."""

    mean: _Mean

    def __truediv__(self, _: int) -> _Mean:
        return self.mean


class RecordedLosses:
    """Mixin for Ultralytics' trainers, whose loop assigns the losses of each batch and their means in the epoch.

    The means are shown as last read: with the first batch of an epoch, every :data:`READ_EVERY` batches, and with the
    last one; on a CPU, where there is nothing to wait for, with every batch.
    """

    train_loader: Any
    loss_names: Sequence[str]
    _losses: LossRecord | None = None
    _loss_items: Mapping[str, Tensor] | None = None
    _shown = False

    @property
    def losses(self) -> LossRecord:
        """The losses of the epoch."""
        if self._losses is None:
            self._losses = LossRecord()
        return self._losses

    def progress_string(self) -> str:
        """Ultralytics' heading of an epoch, names that are too long for its columns folded over several lines."""
        return "\n" + heading(["Epoch", "GPU_mem", *self.loss_names, "Instances", "Size"])

    def is_validated(self, loss: str) -> bool:
        """Whether a loss of the training is computed in a validation, too; else it would be a column of zeros."""
        return True

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Ultralytics' names of the losses, and their values if there are some; of a validation only what it has."""
        named = super().label_loss_items(loss_items, prefix)  # type: ignore[misc]
        if prefix != "val":
            return named
        kept = [name for name in named if self.is_validated(name.removeprefix("val/"))]
        return {name: named[name] for name in kept} if isinstance(named, dict) else kept

    @property
    def loss_items(self) -> Mapping[str, Tensor] | None:
        """The losses of the last batch by name."""
        return self._loss_items

    @loss_items.setter
    def loss_items(self, losses: Mapping[str, Tensor] | None) -> None:
        self._loss_items = losses
        if losses is None:  # the batch was too large
            return
        self.losses.add(losses)
        at_hand = next(iter(losses.values())).device.type == HOST
        if at_hand or self.losses.batches in {1, len(self.train_loader)}:
            self.losses.read()

    @property
    def tloss(self) -> Any:
        """Mean of each loss over the epoch, as last read; None before its first batch."""
        return {name: _Mean(mean) for name, mean in self.losses.means.items()} if self._shown else None

    @tloss.setter
    def tloss(self, means: Mapping[str, Any] | None) -> None:
        self._shown = means is not None
        if means is None:
            self.losses.start_epoch()
