"""Training views of images with masks, made on the device: what :class:`MixedMaskDataset` and its collation give."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfssd.datasets.records import IGNORE
from dfssd.loading.loader import NotOnDeviceError
from dfssd.loading.photometric import PhotometricViews
from dfssd.loading.pixels import to_device
from dfssd.loading.store import MACHINE, SHARE, Images, Memory, NoRoomError, keys_of, open_store
from dfssd.segmentation.stored_maps import StoredMaps, bytes_of_maps, store_maps
from dfssd.segmentation.symmetries import POSES, offsets, pixel_numbers, read_squares


class MaskViews:
    """Makes batches of images with masks and images without."""

    def __init__(self, parts: Any, device: torch.device, *, memory: Memory = MACHINE):
        """Decode images and masks, and compute the distance maps if they are wanted.

        Args:
            parts: The data sets: a ``MaskDataset`` and perhaps an ``UnlabeledDataset``, both for training.
            device: Where the views are made.
            memory: The memory of the machine.

        Raises:
            NotOnDeviceError: The views cannot be made here.
            UserError: An image cannot be read.
        """
        first = parts[0]
        self.device, self.side, self.labeled = device, int(first.imgsz), len(first)
        self.symmetries = first.views.symmetries
        try:
            self.colors = PhotometricViews(first.views.colors)
            strong = getattr(parts[-1], "strong", None)
            self.strong = PhotometricViews(strong.transform) if strong else None
            images = [Images(part.im_files, part.with_ids, part.id_files) for part in parts]
            self.store = open_store(images, self.side, device, memory=memory)
        except (NoRoomError, ValueError) as e:
            raise NotOnDeviceError(str(e)) from e
        self.files = [file for part in parts for file in part.im_files]
        self.numbers = np.concatenate([self.store.numbers(own.files, own.fourth) for own in images])
        self.sizes = self.store.sizes[self.numbers]
        self.maps = self._store_maps(first, memory) if first.data.get("boundary") else None
        self.noise = torch.Generator(device)

    def _store_maps(self, labeled: Any, memory: Memory) -> StoredMaps:
        nc, others = len(labeled.data["names"]), len(self.files) - self.labeled

        def room(maps: int) -> Tensor:
            needed = bytes_of_maps(maps, self.side)
            if needed <= SHARE * memory.free(self.device):
                with contextlib.suppress(torch.OutOfMemoryError):  # what is free may be in pieces
                    return memory.there(needed, self.device).view(torch.float32).view(maps, -1)
            raise NotOnDeviceError(f"{maps:,} distance maps take {needed / 2**30:.1f} GiB, and {self.device} has less")

        known = "distance maps", nc, tuple(keys_of(labeled.im_files, labeled.id_files))
        if known not in self.store.derived:
            self.store.derived[known] = store_maps(
                lambda number: labeled.with_ids(number)[..., 3], self.labeled, nc=nc, side=self.side, room=room
            )
        maps: StoredMaps = self.store.derived[known]
        return StoredMaps(maps.values, np.concatenate([maps.rows, np.zeros((others, nc - 1), np.int64)]))

    def batch(self, images: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        """The batch of ``images`` (B,), labeled ones first, all of it on the device.

        All random numbers come from ``rng``.
        """
        poses = rng.integers(POSES, size=len(images)) if self.symmetries else np.zeros(len(images), np.int64)
        changes = self.colors.sample(rng, len(images), (self.side, self.side))
        stored, places = self.store.fetch(self.numbers[images])
        labeled = images < self.labeled
        arrays = [*offsets(self.sizes[images], poses, self.side), places * (self.side + 2) ** 2, labeled]
        if self.maps:
            arrays.append(self.maps.firsts(images))
        rows, columns, squares, known, *firsts = to_device(arrays, self.device)
        numbers = pixel_numbers(rows, columns)
        pixels = read_squares(stored.view(torch.int32), numbers + squares[:, None, None])
        seen = pixels.view(torch.uint8).view(*pixels.shape, 4)
        ids = seen[..., 3]
        image = seen[..., :3].permute(0, 3, 1, 2).contiguous()
        mask = ids if labeled.all() else torch.where(known[:, None, None], ids, IGNORE)
        batch: dict[str, Any] = {
            "im_file": [self.files[i] for i in images],
            "img": self.colors.apply(image, changes) if changes else image,
            "semantic_mask": mask.int(),
            "kd_pixels": ids != IGNORE,
            "labeled": known,
        }
        if self.maps:
            batch["boundary_maps"] = read_squares(self.maps.values, numbers[:, None] + firsts[0][:, :, None, None])
        unlabeled = int((~labeled).sum())
        if self.strong is not None and unlabeled:
            weak = batch["img"][-unlabeled:]
            batch["weak_img"] = weak
            batch["img"] = torch.cat([batch["img"][:-unlabeled], self.strong.change(weak, rng, self.noise)])
        return batch
