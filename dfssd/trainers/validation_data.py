"""Validation batches, read and decoded once for all networks of a run, and kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from dfssd.distributed import group
from dfssd.hardware import free_memory
from dfssd.log import LOGGER

SHARE = 0.25
"""Largest share of the free memory, of a device or of the machine, that validation batches take."""

Batch = Mapping[str, Any]

_kept: dict[Any, list[Batch]] = {}
"""The batches of the last data set, by what determines them."""


beside: dict[Any, Tensor] = {}
"""What validators keep for the same images."""


def forget() -> None:
    """Free the memory of the batches, and of what is kept beside them."""
    _kept.clear()
    beside.clear()


class KeptLoader:
    """A loader of validation batches that reads them once; afterwards they come from memory.

    Networks that are validated on the same images in the same way share them. What does not fit into :data:`SHARE` of
    the free memory is read again each time.
    """

    def __init__(self, loader: Any, device: torch.device):
        """Read from ``loader``, whose batches do not change from one time to the next; ``device`` will use them."""
        self.loader, self.device = loader, device
        self._key: Any = None
        self._said = False

    @property
    def dataset(self) -> Any:
        """The images and labels."""
        return self.loader.dataset

    @property
    def sampler(self) -> Any:
        """The order of the images."""
        return self.loader.sampler

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        return int(self.loader.batch_size)

    @property
    def num_workers(self) -> int:
        """Processes that read."""
        return int(self.loader.num_workers)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """One pass: a fresh dictionary for each batch, whose tensors nobody may change in place."""
        if self._key is None:
            self._key = (*key_of(self.dataset), self.batch_size, str(self.device), group.rank(), len(self))
        if (batches := _kept.get(self._key)) is None:
            yield from self._read()
        else:
            yield from map(dict, batches)

    def _read(self) -> Iterator[dict[str, Any]]:
        """One pass over the loader; its batches are kept if there is room for all, and it is read to the end."""
        batches: list[Batch] = []
        home = None
        for number, batch in enumerate(self.loader):
            if not number:
                home = self._choose_home(bytes_of(batch) * len(self))
            if home is not None:
                batches.append({name: value.to(home) if _is_tensor(value) else value for name, value in batch.items()})
                batch = batches[-1]
            yield dict(batch)
        if home is not None:
            _kept.clear()
            _kept[self._key] = batches
            self.reset()

    def _choose_home(self, size: int) -> torch.device | None:
        home = home_of(size, self.device)
        if home is None and not self._said:
            LOGGER.info(f"validation images are read anew each time: {size / 1e9:.1f} GB are too much for the memory")
            self._said = True
        return home

    def reset(self) -> None:
        """End the processes that read; they start again when they are needed."""
        self.loader.reset()

    def close(self) -> None:
        """End the processes that read."""
        self.loader.close()


def _is_tensor(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor)


def key_of(dataset: Any) -> tuple[Any, ...]:
    """What determines the samples of an Ultralytics data set without augmentation, with the content of its labels."""
    labels = hashlib.sha256()
    for label in getattr(dataset, "labels", ()):
        for name in ("cls", "bboxes"):
            if name in label:
                labels.update(np.ascontiguousarray(label[name]).tobytes())
            labels.update(b"|")
    shapes = getattr(dataset, "batch_shapes", None)
    described = repr(sorted((str(name), str(value)) for name, value in (dataset.data or {}).items()))
    return (
        type(dataset).__name__,
        tuple(map(str, dataset.im_files)),
        labels.hexdigest(),
        described,
        *(str(getattr(dataset, name, None)) for name in ("imgsz", "stride", "rect", "pad", "single_cls", "channels")),
        None if shapes is None else np.asarray(shapes).tobytes(),
    )


def bytes_of(batch: Batch) -> int:
    """Size of the tensors of a batch."""
    return sum(value.nbytes for value in batch.values() if _is_tensor(value))


def home_of(size: int, device: torch.device) -> torch.device | None:
    """Where ``size`` bytes are kept: on the device, in the memory of the machine, or (None) nowhere."""
    if device.type == "cuda" and size <= SHARE * free_on(device):
        return device
    host = torch.device("cpu")
    return host if size <= SHARE * free_on(host) else None


def free_on(device: torch.device) -> int:
    """Free memory of a CUDA device, or this process's share of that of the machine [bytes]."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
