"""A loader that makes every batch on the device, in the place of Ultralytics' ``InfiniteDataLoader``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np


class NotOnDeviceError(Exception):
    """The views that are asked for cannot be made on the device; the message says why, in a part of a sentence."""


class Sampler(Protocol):
    """The order of the images: :class:`dfssd.trainers.mixed_data.MixedSampler`."""

    seed: int
    rank: int
    epoch: int

    def __len__(self) -> int:
        """Images in an epoch."""

    def __iter__(self) -> Iterator[int]:
        """The images of the next epoch."""


class Views(Protocol):
    """Makes batches: :class:`~dfssd.loading.box_views.BoxViews`."""

    def batch(self, images: np.ndarray, rng: np.random.Generator) -> Any:
        """The batch of ``images`` (B,), as a loader's ``collate_fn`` gives it; all random numbers come from ``rng``."""


class DeviceLoader:
    """Batches whose images are already on the device.

    The random numbers of a batch follow from seed, process, epoch, and number of the batch alone: a resumed training
    sees the views that it would have seen. Nothing here waits for the device, so that a batch is prepared while the
    device still computes the step before.

    Attributes:
        dataset: What the views are made of, as Ultralytics' trainer asks for it.
        sampler: Order of the images.
        batch_size: Images in a batch.
        num_workers: 0, there are no processes.
        drop_last: False, there is no smaller batch at the end.
    """

    num_workers = 0
    drop_last = False

    def __init__(self, dataset: Any, sampler: Sampler, views: Views, *, batch: int):
        """Set what is loaded, in which order, and how many images make a batch."""
        self.dataset, self.sampler, self.batch_size = dataset, sampler, batch
        self._views: Views | None = views

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sampler) // self.batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches of one epoch."""
        if self._views is None:
            raise RuntimeError("the loader is closed")
        epoch = self.sampler.epoch  # the sampler counts on
        order = np.fromiter(self.sampler, np.int64).reshape(-1, self.batch_size)
        for number, images in enumerate(order):
            rng = np.random.default_rng((self.sampler.seed, self.sampler.rank, epoch, number))
            yield self._views.batch(images, rng)

    def reset(self) -> None:
        """Nothing has been prepared ahead: a change of the data set holds from the next batch on."""

    def close(self) -> None:
        """Let go of the images, whose memory another training may need."""
        self._views = None
