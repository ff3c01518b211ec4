"""Random numbers of training images that follow from their place in the training, whoever makes them and when.

Ultralytics' transforms draw from the three global sources of a process, and its mosaics take their other photos from
those that the process has read lately. What an image looks like would then depend on everything that was read before
it: on which loader process made it, on what was prepared ahead, and on where a training was interrupted. Here every
image is made with sources of its own, seeded by its place, and the other photos of its mosaic follow from the order of
the images: they are those that Ultralytics would have in memory, which are fewer of each batch with more processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from ultralytics.data.augment import Albumentations, Mosaic
from ultralytics.data.dataset import YOLODataset


class Draw(NamedTuple):
    """A training image that is to be made.

    Attributes:
        image: Its number in the data set.
        place: Where it stands in the training: seed, process, pass over the loader, batch, number in the batch.
        near: Numbers, in the part of the data set that the image lies in, of those drawn lately; for its mosaic.
    """

    image: int
    place: tuple[int, ...]
    near: np.ndarray


def seed_all(place: Sequence[int]) -> None:
    """Seed the global sources of Python, NumPy, and PyTorch, on all devices, by numbers >= 0."""
    first, second, third = _seeds(place)
    random.seed(first)
    np.random.seed(second)
    torch.manual_seed(third)


@contextmanager
def seeded(place: Sequence[int]) -> Iterator[None]:
    """Seed the global sources on the CPU by ``place`` for the block; afterwards they go on as if it had not been."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first, second, third = _seeds(place)
    random.seed(first)
    np.random.seed(second)
    torch.default_generator.manual_seed(third)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seeds(place: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = np.random.SeedSequence(place).generate_state(3).tolist()
    return first, second, third


class Nearby:
    """The images of a data set that were drawn lately, as the data set from which a mosaic takes its other photos.

    Attributes:
        now: Their numbers; at first all images.
    """

    def __init__(self, dataset: YOLODataset):
        """Begin with all images of ``dataset``."""
        self.dataset = dataset
        self.now: Sequence[int] | np.ndarray = range(len(dataset))

    def __len__(self) -> int:
        """Number of images to choose from."""
        return len(self.now)

    def get_image_and_label(self, number: int) -> dict[str, Any]:
        """Ultralytics' sample of one of them, before any transform."""
        found: dict[str, Any] = self.dataset.get_image_and_label(int(self.now[number]))
        return found


class Part:
    """A data set whose views depend on the place of each image alone."""

    def __init__(self, dataset: YOLODataset):
        """Let the mosaics of ``dataset`` take their photos from those drawn lately.

        With ``cache=ram``, Ultralytics' mosaics take photos of the whole data set, and keep doing so.
        """
        self.dataset, self.nearby = dataset, Nearby(dataset)
        for transform in _flat(dataset.transforms):
            if isinstance(transform, Mosaic) and transform.buffer_enabled:
                transform.dataset, transform.buffer_enabled = self.nearby, False

    @property
    def most_nearby(self) -> int:
        """Images that Ultralytics keeps in memory for mosaics."""
        return int(self.dataset.max_buffer_length)

    @contextmanager
    def drawing(self, draw: Draw) -> Iterator[None]:
        """The block makes the image of ``draw``."""
        self.nearby.now = draw.near
        with seeded(draw.place):
            for transform in _flat(self.dataset.transforms):
                if isinstance(transform, Albumentations) and (composed := transform.transform) is not None:
                    seed = random.getrandbits(32)
                    # one source for all operations: with a seed, each would get its own, all drawing the same numbers
                    composed.set_random_state(np.random.default_rng(seed), random.Random(seed))
                    composed.seed = torch.initial_seed()  # else Ultralytics seeds it anew
            yield


def _flat(transform: Any) -> Iterator[Any]:
    """A transform with all those inside it."""
    yield transform
    for part in getattr(transform, "transforms", None) or ():
        yield from _flat(part)
    if (before := getattr(transform, "pre_transform", None)) is not None:
        yield from _flat(before)
