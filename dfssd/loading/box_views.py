"""Training views of images with boxes, made on the device: what Ultralytics' transforms and ``collate_fn`` give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfssd.batches import LoadedBatch
from dfssd.loading.color import hsv, sample_gains
from dfssd.loading.geometry import GeometrySettings, LabelTable, arrange, draw, move_boxes
from dfssd.loading.loader import NotOnDeviceError
from dfssd.loading.photometric import PhotometricViews
from dfssd.loading.pixels import to_device
from dfssd.loading.sampling import CanvasMaps, mix, read_views
from dfssd.loading.store import Images, NoRoomError, open_store


class BoxViews:
    """Makes batches of labeled and unlabeled images with their rows of boxes (:mod:`dfssd.batches`).

    The order of Ultralytics is mosaic, transform, mixup, Albumentations, colors, flips. Here the flips are part of the
    transform: the others do the same to a flipped image, but for CLAHE where 8 does not divide the side.
    """

    def __init__(
        self, dataset: Any, args: Any, device: torch.device, *, strong: Any = None, mosaic: float | None = None
    ) -> None:
        """Decode the images and collect their labels.

        Args:
            dataset: Lists of images, ``datasets``, each a ``YOLODataset``: the labeled one, and perhaps the unlabeled
                one. ``mosaic_closed`` says whether mosaic and mixup have ended.
            args: Ultralytics' arguments.
            device: Where the views are made.
            strong: Changes to the student's view of unlabeled images, an ``albumentations.Compose``; None without any.
            mosaic: Probability of a mosaic in the views of unlabeled images; None: that of ``args``.

        Raises:
            NotOnDeviceError: The views cannot be made here.
            UserError: An image cannot be read.
        """
        self.dataset, self.device = dataset, device
        parts: Sequence[Any] = dataset.datasets
        self.augmentations = _augmentations(parts[0])
        self.strong = None if strong is None else _on_batches(strong, "strong_view=", bgr=False)
        if any(len(label["segments"]) for part in parts for label in part.labels):
            raise NotOnDeviceError("labels have outlines")
        try:
            self.store = open_store([Images.of_dataset(part) for part in parts], parts[0].imgsz, device)
        except NoRoomError as e:
            raise NotOnDeviceError(str(e)) from e
        labels = [label for part in parts for label in part.labels]
        self.files = [file for part in parts for file in part.im_files]
        self.shapes = [tuple(label["shape"]) for label in labels]
        self.numbers = self.store.numbers(self.files)
        self.sizes = self.store.sizes[self.numbers]
        self.labels = LabelTable.of_labels(labels, self.sizes)
        ends = np.cumsum([len(part) for part in parts])
        self.parts = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
        self._open = GeometrySettings.of_arguments(args, parts[0].imgsz)
        self.chances = np.array([self._open.mosaic, self._open.mosaic if mosaic is None else mosaic])
        self.gains = (args.hsv_h, args.hsv_s, args.hsv_v)
        self.bgr = float(args.bgr)
        self.noise = torch.Generator(device)

    @property
    def settings(self) -> GeometrySettings:
        """The geometry at present."""
        return replace(self._open, mosaic=0.0, mixup=0.0) if self.dataset.mosaic_closed else self._open

    def batch(self, images: np.ndarray, rng: np.random.Generator) -> LoadedBatch:
        """The batch of ``images`` (B,), labeled ones first; images on the device, boxes on the CPU."""
        settings, side = self.settings, self._open.side
        part = np.searchsorted(self.parts[:, 1], images, side="right")
        mosaic = np.zeros(len(images)) if self.dataset.mosaic_closed else self.chances[part]
        canvases = arrange(draw(rng, images, self.parts[part], settings, mosaic), self.sizes, settings)
        stored, places = self.store.fetch(self.numbers[canvases.images])
        seen = mix(read_views(stored, CanvasMaps(canvases, places, settings, self.device)), canvases)
        seen = self._recolor(seen, rng)
        rows = move_boxes(canvases, self.labels, settings)
        batch: LoadedBatch = {
            "im_file": tuple(self.files[i] for i in images),
            "ori_shape": tuple(self.shapes[i] for i in images),
            "resized_shape": ((side, side),) * len(images),
            "img": seen,
            "cls": self._ready(rows.values[:, :1]),
            "bboxes": self._ready(rows.boxes),
            "score": self._ready(rows.values[:, 1]),
            "batch_idx": self._ready(rows.view),
            "labeled": self._ready(part == 0, torch.bool),
        }
        unlabeled = int((part > 0).sum())
        if self.strong is not None and unlabeled:
            weak = seen[-unlabeled:]
            batch["weak_img"] = weak
            batch["img"] = torch.cat([seen[:-unlabeled], self.strong.change(weak, rng, self.noise)])
        return batch

    def _recolor(self, seen: Tensor, rng: np.random.Generator) -> Tensor:
        """Albumentations, colors, and the order of the channels."""
        seen = self.augmentations.change(seen, rng, self.noise)
        if any(self.gains):
            seen = hsv(seen, sample_gains(rng, len(seen), self.gains))
        if self.bgr:
            [swapped] = to_device([rng.random(len(seen)) < self.bgr], self.device)
            seen = torch.where(swapped.view(-1, 1, 1, 1), seen.flip(1), seen)
        return seen

    def _ready(self, values: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        """On the CPU, in memory from which a GPU copies without making the host wait."""
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def _augmentations(dataset: Any) -> PhotometricViews:
    """What Ultralytics does to the pixels of a data set by Albumentations."""
    [transform] = [t for t in dataset.transforms.transforms if hasattr(t, "contains_spatial")]
    if transform.contains_spatial:
        raise NotOnDeviceError("augmentations= moves pixels")
    return _on_batches(transform.transform, "augmentations=", bgr=True)


def _on_batches(transforms: Any, key: str, *, bgr: bool) -> PhotometricViews:
    try:
        return PhotometricViews(transforms, bgr=bgr)
    except ValueError as e:
        raise NotOnDeviceError(f"{key} has what the device cannot do ({e})") from e
