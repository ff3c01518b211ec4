"""All images of a training, decoded once, on the device or in the memory beside it.

Each image is stored as Ultralytics loads it (:meth:`YOLODataset.load_image`, so the pixels are equal), in the top left
corner of a square of gray with a frame of one pixel. A pixel takes four bytes: red, green, blue, and one for what else
belongs to it, such as the class id of a mask. So one read of an ``int32`` fetches a pixel, and reading the frame is
reading the gray around an image.

The trainings of a run use the same files: :func:`open_store` keeps the last store, and only what it lacks is decoded.
"""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from dfssd.errors import UserError
from dfssd.hardware import free_memory
from dfssd.log import LOGGER
from dfssd.wording import counted

GRAY = 114
"""Gray around images, as in Ultralytics' mosaic and letterbox."""

NO_CLASS = 255
"""The fourth byte where nothing is known: the id of ignored pixels in masks."""

CHANNELS = 4
"""Bytes of a pixel."""

SHARE = 0.5
"""Largest share of the free memory that the images may take beside a GPU."""

SHARE_OF_GPU = 0.25
"""Largest share of the free memory of a GPU: activations, gradients, and graphs of a training come on top of them."""

_AT_ONCE = 128
"""Images decoded before they are copied to their place."""

_SLOW = 2.0
"""[s] Decoding that takes longer is reported on the way."""

FileState = tuple[str, int, int]
"""Path of a file, its size [bytes], and time of its last change [ns]."""

Key = tuple[FileState, ...]
"""What identifies stored pixels: the image file, and the file of the fourth byte, if there is one."""


class NoRoomError(Exception):
    """The images fit neither the device nor the memory beside it; the message says so in one line."""


@dataclass(frozen=True)
class Images:
    """A list of image files and how they are read.

    Attributes:
        files: Paths.
        read: Number in the list -> (h, w, 3) BGR, or (h, w, 4) with the fourth byte, uint8; no side longer than that of
            the store. Called from several threads.
        fourth: Where the fourth bytes come from: for each image a file, or a word if there is none.
    """

    files: Sequence[str]
    read: Callable[[int], np.ndarray]
    fourth: Sequence[str] = ()

    @classmethod
    def of_dataset(cls, dataset: Any) -> Images:
        """The images of a ``YOLODataset``, read by its ``load_image``."""
        plain = copy.copy(dataset)
        plain.augment = False  # else it keeps what it has read for its mosaics
        return cls(dataset.im_files, lambda number: plain.load_image(number)[0])


@dataclass(frozen=True)
class Memory:
    """How much memory is free, and how to get some that the device can read by itself.

    Attributes:
        free: Device -> free bytes.
        there: Number of bytes, device -> uint8 tensor of that length on it.
        pinned: Number of bytes -> uint8 tensor of that length beside the device, pinned if possible. Not for
            all images: PyTorch takes the next power of two of it, and never gives it back.
    """

    free: Callable[[torch.device], int]
    there: Callable[[int, torch.device], Tensor]
    pinned: Callable[[int], Tensor]


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return free_memory()


def _there(size: int, device: torch.device) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def _pinned(size: int) -> Tensor:
    """Pinned where there is a GPU and the system, which may limit it, gives so much."""
    if torch.cuda.is_available():
        with contextlib.suppress(RuntimeError):
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    return torch.empty(size, dtype=torch.uint8)


MACHINE = Memory(_free, _there, _pinned)
"""The memory of this machine."""


@dataclass(frozen=True)
class ImageStore:
    """Decoded images.

    Attributes:
        side: Longest side of an image, S [px].
        device: Where the views are made.
        pixels: (n, S + 2, S + 2, 4) uint8, on the device or beside it.
        sizes: (n, 2) int64, height and width of each image [px].
        slots: File -> number of its image.
        beside: The images lie in memory beside the device, and those of a batch are copied to it.
        derived: What loaders have made of the images, kept as long as they are.
    """

    side: int
    device: torch.device
    pixels: Tensor
    sizes: np.ndarray
    slots: dict[Key, int] = field(repr=False)
    beside: bool
    derived: dict[Any, Any] = field(default_factory=dict, repr=False)

    def numbers(self, files: Sequence[str], fourth: Sequence[str] = ()) -> np.ndarray:
        """Numbers of the images of ``files``, (len(files),) int64; ``fourth`` as for :class:`Images`."""
        return np.array([self.slots[key] for key in keys_of(files, fourth)], np.int64)

    def fetch(self, numbers: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Pixels on the device that hold at least the images ``numbers``, and their numbers there.

        A store on the device gives itself. One beside it copies the images, each once, in the order of the numbers;
        nothing waits for the copy.

        Args:
            numbers: Any shape, int64.

        Returns:
            (m, S + 2, S + 2, 4) uint8 on the device, and an array of the shape of ``numbers``.
        """
        if not self.beside:
            return self.pixels, numbers
        wanted, places = np.unique(numbers, return_inverse=True)
        shape = (len(wanted), *self.pixels.shape[1:])
        staged = _pinned(bytes_needed(len(wanted), self.side)).view(shape)
        torch.index_select(self.pixels, 0, torch.from_numpy(wanted), out=staged)
        return staged.to(self.device, non_blocking=True), places.reshape(numbers.shape)


def keys_of(files: Sequence[str], fourth: Sequence[str] = ()) -> list[Key]:
    """What identifies the content of image files, and of what their fourth bytes come from.

    Raises:
        UserError: A file is missing.
    """
    images = [(_state(file),) for file in files]
    if not fourth:
        return list(images)
    words = [_state(other) if os.path.exists(other) else (other, 0, 0) for other in fourth]
    return [(*image, word) for image, word in zip(images, words, strict=True)]


def _state(file: str) -> FileState:
    try:
        stat = os.stat(file)
    except OSError as e:
        raise _unreadable(file) from e
    return str(file), stat.st_size, stat.st_mtime_ns


def bytes_needed(images: int, side: int) -> int:
    """Bytes that so many images take with longest side ``side`` [px]."""
    return images * (side + 2) ** 2 * CHANNELS


_kept: list[ImageStore] = []


def open_store(lists: Sequence[Images], side: int, device: torch.device, *, memory: Memory = MACHINE) -> ImageStore:
    """The store of all images of ``lists``: the one of the last call, as far as it holds them.

    Args:
        lists: The images; a file of several lists is read by the first.
        side: Longest side as read, S [px].
        device: Where the views are made.
        memory: The memory of the machine.

    Raises:
        NoRoomError: The images take more than :data:`SHARE_OF_GPU` of the free memory of a GPU, and more than
            :data:`SHARE` of that beside it.
        UserError: An image cannot be read.
    """
    readers: dict[Key, tuple[Images, int]] = {}
    for images in lists:
        for number, key in enumerate(keys_of(images.files, images.fourth)):
            readers.setdefault(key, (images, number))
    before = _kept.pop() if _kept else None
    if before is not None and (before.side, before.device) != (side, device):
        before = None
    if before is None or readers.keys() - before.slots.keys():
        before = _extended(before, readers, side, device, memory)
    _kept.append(before)
    return before


def _extended(
    before: ImageStore | None,
    readers: dict[Key, tuple[Images, int]],
    side: int,
    device: torch.device,
    memory: Memory,
) -> ImageStore:
    """A store of the images of ``readers``; those in the store ``before``, which is given up, are copied."""
    held = 0 if before is None or before.beside else before.pixels.numel()
    pixels, beside = _room(len(readers), side, device, memory, held)
    slots = {key: slot for slot, key in enumerate(readers)}
    store = ImageStore(side, device, pixels, np.zeros((len(slots), 2), np.int64), slots, beside)
    known = [] if before is None else [key for key in readers if key in before.slots]
    if before is not None:
        _take_over(store, before, known)
        store.derived.update(before.derived)
    unknown = {key: reader for key, reader in readers.items() if before is None or key not in before.slots}
    _decode(store, unknown, memory)
    return store


def release_stores() -> None:
    """Forget the store that :func:`open_store` keeps; its memory is free once no loader uses it."""
    _kept.clear()


def _room(images: int, side: int, device: torch.device, memory: Memory, held: int) -> tuple[Tensor, bool]:
    """Memory for the images, (n, S + 2, S + 2, 4) uint8, and whether it lies beside the device.

    ``held`` are the bytes of the device that will be free afterwards.
    """
    needed = bytes_needed(images, side)
    shape = (images, side + 2, side + 2, CHANNELS)
    host = torch.device("cpu")
    free = memory.free(device)
    share = SHARE_OF_GPU if device.type == "cuda" else SHARE
    if needed <= min(free, share * (free + held)):
        with contextlib.suppress(torch.OutOfMemoryError):  # what is free may be in pieces
            return memory.there(needed, device).view(shape), False
    if device != host and needed <= SHARE * memory.free(host):
        LOGGER.info(f"{counted(images, 'image')} of {side} px: {_amount(needed)}, kept in the memory beside {device}")
        return torch.empty(shape, dtype=torch.uint8), True
    raise NoRoomError(f"{counted(images, 'image')} of {side} px: {_amount(needed)}, more than half of the free memory")


def _take_over(store: ImageStore, before: ImageStore, keys: Sequence[Key]) -> None:
    old, new = (np.array([s.slots[key] for key in keys], np.int64) for s in (before, store))
    store.sizes[new] = before.sizes[old]
    for some in np.array_split(np.arange(len(keys)), max(1, len(keys) // _AT_ONCE)):
        images = before.pixels[torch.from_numpy(old[some]).to(before.pixels.device)]
        store.pixels[torch.from_numpy(new[some]).to(store.pixels.device)] = images.to(store.pixels.device)


def _decode(store: ImageStore, readers: dict[Key, tuple[Images, int]], memory: Memory) -> None:
    """Read images in several threads, since OpenCV releases Python's lock, and put them in their place."""
    if not readers:
        return
    start = reported = time.monotonic()
    todo = iter(readers.items())
    shape = (_AT_ONCE, *store.pixels.shape[1:])
    block = memory.pinned(bytes_needed(_AT_ONCE, store.side)).view(shape)
    done = 0
    with ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 1)) as pool:
        while some := list(islice(todo, _AT_ONCE)):
            places = [store.slots[key] for key, _ in some]
            jobs = [(*reader, block[i].numpy()) for i, (_, reader) in enumerate(some)]
            store.sizes[places] = list(pool.map(_read_into, jobs))
            store.pixels[torch.tensor(places, device=store.pixels.device)] = block[: len(some)].to(store.pixels.device)
            done += len(some)
            if time.monotonic() - reported > _SLOW and done < len(readers):
                reported = time.monotonic()
                LOGGER.info(f"decoding images: {done:,} of {len(readers):,}")
    took = time.monotonic() - start
    where = "the host" if store.beside else store.device
    size = _amount(bytes_needed(len(store.slots), store.side))
    LOGGER.info(f"decoded {counted(done, 'image')} in {took:.1f} s; of {len(store.slots):,} in all, {size} on {where}")


def _read_into(job: tuple[Images, int, np.ndarray]) -> tuple[int, int]:
    """Read one image into its square (S + 2, S + 2, 4); its height and width."""
    images, number, square = job
    try:
        pixels = images.read(number)
    except (OSError, cv2.error) as e:
        raise _unreadable(images.files[number]) from e
    h, w, channels = pixels.shape
    square[..., :3], square[..., 3] = GRAY, NO_CLASS
    inside = square[1 : h + 1, 1 : w + 1]
    inside[..., :3] = pixels[..., 2::-1]
    if channels == CHANNELS:
        inside[..., 3] = pixels[..., 3]
    return h, w


def _unreadable(file: str | Path) -> UserError:
    return UserError(f"cannot read {file}: restore the file, or prepare the data anew with skip_bad=true")


def _amount(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"
