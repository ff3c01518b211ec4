"""Training data that mixes labeled and pseudo-labeled images at a fixed ratio in every batch.

Two Ultralytics datasets stand side by side, so that a mosaic is made of labeled images only or of pseudo-labeled
images only, and "labeled" stays a property of a whole training image. The sampler lays out every batch as labeled
images first, then unlabeled ones, and makes an epoch a *number of batches*, which is how the labeled-only baseline
is given exactly the optimizer steps of the student (:mod:`dfssd.trainers.sampler`).

Pseudo-labeled images never reach Ultralytics' label reader: a missing label file would be read as "free of defects".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset
from ultralytics.data.build import InfiniteDataLoader, seed_worker
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import exif_size

from dfssd.batches import PhotoBoxes, encode
from dfssd.distributed import group
from dfssd.errors import UserError
from dfssd.loading.box_views import BoxViews
from dfssd.loading.loader import DeviceLoader, NotOnDeviceError
from dfssd.log import LOGGER
from dfssd.pseudo_labels.files import read_pseudo_labels
from dfssd.pseudo_labels.labeling import true_boxes
from dfssd.pseudo_labels.records import PseudoImage
from dfssd.pseudo_labels.thresholds import ACCEPT, IGNORE
from dfssd.trainers.draws import Draw, Part
from dfssd.trainers.sampler import Draws, MixedSampler
from dfssd.trainers.views import StrongView


class PseudoLabelDataset(YOLODataset):
    """Unlabeled images, with the pseudo boxes that are known before the training, if any.

    The boxes of a photo go through every geometric augmentation with it, as rows of class ids and boxes
    (:mod:`dfssd.batches`): ``cls`` has two columns for that, the encoded class id and the number beside it.

    ``data["pseudo"]`` names a folder written by :func:`write_pseudo_labels`; empty, the boxes are found during the
    training and an image starts without any. ``data["strong_view"]`` is the strength of :class:`StrongView`, 0 for
    none. ``data["mosaic"]`` repeats the probability of a mosaic in ``hyp`` for the views that are made on a device.
    """

    def get_labels(self) -> list[dict[str, Any]]:
        """Label dictionaries from the pseudo-labels, in the order of the image list.

        Raises:
            KeyError: The list names an image without a pseudo-label entry (a bug in the caller, not a user's mistake).
        """
        nc = len(self.data["names"])
        strength = self.data["strong_view"]
        self.strong = StrongView(strength) if strength else None
        self.mosaic = self.data.get("mosaic")
        folder = self.data.get("pseudo")
        known = {str(image.image): image for image in read_pseudo_labels(Path(folder))} if folder else {}
        truth = true_boxes([Path(im_file) for im_file in self.im_files], nc)
        labels = []
        for photo, im_file in enumerate(self.im_files):
            found = known[im_file] if folder else None
            shape = image_shape(im_file) if found is None else (found.height, found.width)
            rows = encode(_known_boxes(found, truth.get(Path(im_file))), photo=photo, nc=nc)
            labels.append(
                {
                    "im_file": im_file,
                    "shape": shape,
                    "cls": rows[:, :2],
                    "bboxes": rows[:, 2:],
                    "segments": [],
                    "keypoints": None,
                    "normalized": True,
                    "bbox_format": "xywh",
                }
            )
        return labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Augmented sample: ``img`` is the student's view; with a strong view ``weak_img`` is the teacher's."""
        sample = super().__getitem__(index)
        if self.strong is not None:
            sample["weak_img"] = sample["img"]
            sample["img"] = self.strong(sample["img"])
        rows = sample["cls"].reshape(-1, 2) if len(sample["cls"]) else torch.zeros(0, 2)
        return {**sample, "cls": rows[:, :1], "score": rows[:, 1]}


def _known_boxes(image: PseudoImage | None, truth: np.ndarray | None) -> PhotoBoxes:
    """Boxes of one photo: pseudo boxes found before the training, if any, and true ones (m, 5), if known."""
    truth = np.zeros((0, 5)) if truth is None else truth
    if image is None:
        return PhotoBoxes(np.zeros((0, 6)), np.zeros((0, 4)), truth)
    found = np.concatenate([image.classes[:, None], image.scores[:, None], image.boxes_xywhn], axis=1)
    return PhotoBoxes(found[image.zones == ACCEPT], image.boxes_xywhn[image.zones == IGNORE], truth)


def image_shape(path: str) -> tuple[int, int]:
    """Height and width of an image as training sees it [px].

    Raises:
        UserError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = exif_size(image)
    except OSError as e:
        raise UserError(f"cannot read {path}: restore the file, or prepare the data anew with skip_bad=true") from e
    return height, width


class MixedDataset(ConcatDataset[dict[str, Any]]):
    """Labeled images, then (optionally) unlabeled ones, with the interface of a ``YOLODataset``.

    Each sample gets ``labeled`` (bool) and ``score`` (n,), the weight of its boxes; :attr:`labels` shows only true and
    accepted boxes.
    """

    datasets: list[YOLODataset]

    def __init__(self, labeled: YOLODataset, unlabeled: PseudoLabelDataset | None = None):
        """Put the two datasets side by side; indices below ``len(labeled)`` are labeled."""
        super().__init__([labeled] if unlabeled is None else [labeled, unlabeled])
        self.parts = [Part(dataset) for dataset in self.datasets]
        self.mosaic_closed = False
        self.n_labeled = len(labeled)
        self.nc = len(labeled.data["names"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Augmented sample with the flag ``labeled`` and the scores of its boxes (1 for true ones)."""
        sample = super().__getitem__(index)
        return {"score": torch.ones(len(sample["cls"])), **sample, "labeled": index < self.n_labeled}

    def __getitems__(self, draws: Sequence[Draw]) -> list[dict[str, Any]]:
        """The samples of a batch, as a loader asks for them: each follows from its place in the training alone."""
        samples = []
        for draw in draws:
            with self.parts[draw.image >= self.n_labeled].drawing(draw):
                samples.append(self[draw.image])
        return samples

    @staticmethod
    def collate_fn(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A :class:`~dfssd.batches.LoadedBatch`: what Ultralytics makes, and our own fields."""
        own = ("weak_img", "score", "labeled")
        batch: dict[str, Any] = YOLODataset.collate_fn([{k: v for k, v in s.items() if k not in own} for s in samples])
        batch["score"] = torch.cat([s["score"] for s in samples])
        batch["labeled"] = torch.tensor([s["labeled"] for s in samples])
        if weak := [s["weak_img"] for s in samples if "weak_img" in s]:
            batch["weak_img"] = torch.stack(weak)
        return batch

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels as Ultralytics' plots and class weights read them, without the rows that are not labels to learn."""
        shown = []
        for dataset in self.datasets:
            for label in dataset.labels:
                real = label["cls"][:, 0] < self.nc
                shown.append({**label, "cls": label["cls"][real, :1], "bboxes": label["bboxes"][real]})
        return shown

    def close_mosaic(self, hyp: Any) -> None:
        """Stop the mosaic augmentation in both datasets (Ultralytics does so for the last epochs)."""
        self.mosaic_closed = True
        for dataset in self.datasets:
            dataset.close_mosaic(hyp)

    def device_views(self, args: Any, device: torch.device) -> BoxViews:
        """Views of these images that are made on ``device``; ``args`` are Ultralytics' arguments.

        Raises:
            NotOnDeviceError: The device cannot make them.
            UserError: An image cannot be read.
        """
        strong = getattr(self.datasets[-1], "strong", None)
        mosaic = getattr(self.datasets[-1], "mosaic", None)
        return BoxViews(self, args, device, strong=strong.transform if strong else None, mosaic=mosaic)


class SeededLoader(InfiniteDataLoader):
    """Ultralytics' endless loader, whose images follow from their place in the training."""

    def __init__(self, dataset: MixedDataset, sampler: MixedSampler, **kwargs: Any):
        """Load ``dataset`` in the order of ``sampler``; ``kwargs`` are those of PyTorch's ``DataLoader``."""
        super().__init__(dataset=dataset, sampler=sampler, **kwargs)
        most = [part.most_nearby for part in dataset.parts]
        # PyTorch forbids to set it, but Ultralytics sets it in the same way, and reads this name
        object.__setattr__(self, "batch_sampler", Draws(sampler, most, max(1, self.num_workers)))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batch_sampler)


def build_loader(
    dataset: MixedDataset, sampler: MixedSampler, kind: str, *, batch: int, args: Any, device: torch.device
) -> SeededLoader | DeviceLoader:
    """An endless loader over ``dataset`` in the order of ``sampler``.

    Args:
        dataset: Training images.
        sampler: Their order.
        kind: ``device``: views are made on the device; ``ultralytics``: by Ultralytics' processes; ``auto``: on the
            device if it is a GPU and can make them.
        batch: Images in a batch of this process.
        args: Ultralytics' arguments.
        device: That of the training.

    Raises:
        UserError: ``kind`` is ``device``, which cannot make the views; or an image cannot be read.
    """
    on_gpu = device.type not in {"cpu", "mps"}
    if kind == "device" or (kind == "auto" and on_gpu):
        try:
            return DeviceLoader(dataset, sampler, dataset.device_views(args, device), batch=batch)
        except NotOnDeviceError as e:
            if kind == "device":
                raise UserError(f"loader=device: {e}; use loader=auto") from e
            LOGGER.info(f"loader=auto: Ultralytics' processes make the views, since {e}")
    workers = min(args.workers, os.cpu_count() or 1)
    return build_mixed_loader(dataset, sampler, batch=batch, workers=workers, pin_memory=on_gpu)


def build_mixed_loader(
    dataset: MixedDataset, sampler: MixedSampler, *, batch: int, workers: int, pin_memory: bool
) -> SeededLoader:
    """Ultralytics' endless loader over ``dataset`` in the order of ``sampler``; ``batch`` is per process."""
    generator = torch.Generator()
    generator.manual_seed(6148914691236517205 + sampler.seed + (group.rank() if group.several() else -1))
    return SeededLoader(
        dataset,
        sampler,
        batch_size=batch,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        collate_fn=dataset.collate_fn,
        worker_init_fn=seed_worker,
        generator=generator,
    )
