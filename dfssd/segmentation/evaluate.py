"""Quality and cost of a segmentation model: IoU at the masks' own size, parameters, latency."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.torch_utils import select_device

from dfssd.errors import UserError
from dfssd.evaluation.latency import latency
from dfssd.evaluation.settings import EvalSettings, numbers_in_list, quiet
from dfssd.files import atomic_write
from dfssd.loading.complete import check_complete
from dfssd.segmentation.dataset import MaskDataset
from dfssd.segmentation.metrics import PixelCounts, segmentation_scores
from dfssd.segmentation.model import FullResolutionModel, full_resolution, load_semantic, parameters
from dfssd.segmentation.validator import native_classes, pair_counts
from dfssd.wording import counted

READERS = min(8, (os.cpu_count() or 1) + 1)
"""Threads that decode images and masks."""

Sample = tuple[dict[str, Any], np.ndarray]
"""A sample of the data set, and its mask at its own size."""


def evaluate_masks(
    weights: Path, settings: EvalSettings, *, keep: Mapping[Path, Path] | None = None, counts_file: Path | None = None
) -> dict[str, Any]:
    """Measure a segmentation model on one part of a data set, each mask at its own size.

    Args:
        weights: ``.pt`` of the semantic task, or a file exported from one, whose input size then counts.
        settings: What to measure it on: a semantic data YAML.
        keep: Image -> PNG file for its prediction: class ids in one 8-bit channel of the size of the image.
        counts_file: File for the pixels of each image (:class:`~dfssd.segmentation.metrics.PixelCounts`), from which
            differences between networks get their confidence intervals.

    Returns:
        ``miou_fg``: mean IoU of the defects; ``miou_all``: with the background; ``pixel_accuracy``; ``per_class``: name
        -> ``iou`` and ``pixels``, the number of true ones; ``images``: their number; ``imgsz``: the input size;
        ``parameters``: number of those that inference uses, None for an exported file; ``plain``: whether
        Ultralytics loads the checkpoint without ``dfssd``. Shares are in [0, 1], None where nothing could be
        measured (see :func:`~dfssd.segmentation.metrics.segmentation_scores`).

    Raises:
        UserError: The weights are missing or of another task, know other classes, or the split does not exist.
    """
    settings.check(weights)
    keep = keep or {}
    with quiet():
        data = check_det_dataset(str(settings.data_yaml), split=settings.split)
        network = _LoadedNetwork(weights, settings)
        if network.classes != data["nc"]:
            raise UserError(f"{weights} has {counted(network.classes, 'class')}, but {settings.data_yaml} {data['nc']}")
        dataset = network.dataset(data, settings)
        check_complete(dataset)
    total = torch.zeros(data["nc"], data["nc"], dtype=torch.int64, device=network.backend.device)
    counts: list[Tensor] = []
    images: list[str] = []
    for samples in _batches(dataset, network.batch):
        output = network(torch.stack([sample["img"] for sample, _ in samples]))
        for (sample, truth), one in zip(samples, output):
            found = native_classes(one[None], truth.shape, sample["ratio_pad"])
            own = pair_counts(torch.from_numpy(truth)[None].to(total.device), found, data["nc"])
            total += own
            counts.append(torch.stack([own.diagonal(), own.sum(1), own.sum(0)]))
            images.append(sample["im_file"])
            if target := keep.get(Path(sample["im_file"])):
                _write_ids(found[0].byte().cpu().numpy(), target)
    if counts_file:
        hits, true, predicted = torch.stack(counts, 1).cpu().numpy()
        line = np.array(numbers_in_list(data[settings.split], images))
        names = tuple(Path(image).name for image in images)
        PixelCounts(hits, true, predicted, names, line).write(counts_file)
    confusion = total.cpu().numpy()
    scores = segmentation_scores(confusion)
    pixels = confusion.sum(1).tolist()
    return {
        "miou_fg": scores.miou_fg,
        "miou_all": scores.miou_all,
        "pixel_accuracy": scores.pixel_accuracy,
        "per_class": {name: {"iou": scores.iou[i], "pixels": pixels[i]} for i, name in sorted(data["names"].items())},
        "images": len(dataset),
        "imgsz": list(network.size) if isinstance(network.size, tuple) else network.size,
        "parameters": network.parameters,
        "plain": network.plain,
    }


class _LoadedNetwork:
    """A checkpoint or an exported file, ready to predict, and what kind of input it takes.

    Attributes:
        size: Longer side of the input [px], or (height, width) for the one shape of an exported file.
        batch: Images per forward pass.
        classes: Number of classes.
        parameters: Number of those that inference uses; None for an exported file.
        plain: Whether Ultralytics loads the checkpoint without ``dfssd``.
    """

    def __init__(self, weights: Path, settings: EvalSettings):
        model = load_semantic(weights) if weights.suffix == ".pt" else None
        self.exported = model is None
        self.parameters = None if model is None else parameters(model)
        self.plain = model is not None and not isinstance(model, FullResolutionModel)
        self.backend = AutoBackend(model or str(weights), device=select_device(settings.device, verbose=False))
        self.classes = len(self.backend.names)
        self.stride = 1 if model is None else int(model.stride.max())
        self.size: int | tuple[int, int] = int(np.ceil(settings.imgsz / self.stride) * self.stride)
        self.batch: int = settings.batch
        if self.exported:
            self.size, self.batch = tuple(self.backend.imgsz), self.backend.metadata.get("batch", 1)

    def dataset(self, data: dict[str, Any], settings: EvalSettings) -> MaskDataset:
        """The images of the split in the shape that the network takes."""
        return MaskDataset(
            img_path=data[settings.split],
            imgsz=self.size,
            augment=False,
            hyp=get_cfg(),
            rect=settings.rect and not self.exported,  # exported files have one fixed shape
            batch_size=1,  # each image in a rectangle of its own, padded to the stride and no further
            stride=self.stride,
            pad=0.0,
            data=data,
            task="semantic",
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n, nc, h, w) or class ids (n, h, w) of n images (n, 3, h, w) uint8, at most :attr:`batch`."""
        images = images.to(self.backend.device).float() / 255
        missing = self.batch - len(images) if self.exported else 0
        with torch.inference_mode():
            output = self.backend(torch.cat([images, images.new_zeros(missing, *images.shape[1:])]))
        output = output[0] if isinstance(output, (tuple, list)) else output
        if output.dim() == 4:  # Ultralytics' own models predict at 1/8, but the letterbox is in pixels of the image
            output = full_resolution(output, images.shape[2:])
        return output[: len(images)]


def time_networks(
    weights: Mapping[str, Path],
    *,
    imgsz: int | Mapping[str, int],
    device: str | None = None,
    rounds: int = 50,
    warm_up: int = 10,
) -> dict[str, dict[str, Any]]:
    """Time the forward pass of several checkpoints side by side (:func:`dfssd.evaluation.latency.latency`).

    Args:
        weights: Name -> ``.pt`` of the semantic task.
        imgsz: Side of the image [px], for all or by name; rounded up to the stride of each.
        device: Ultralytics device; None lets Ultralytics choose.
        rounds: Timed runs of each model.
        warm_up: Runs of each before.

    Raises:
        UserError: A file is missing or of another task.
    """
    where = select_device(device, verbose=False)
    models, sides = {}, {}
    for name, path in weights.items():
        models[name] = load_semantic(path).fuse(verbose=False).to(where).eval()
        stride = int(models[name].stride.max())
        sides[name] = int(np.ceil((imgsz if isinstance(imgsz, int) else imgsz[name]) / stride) * stride)
    return latency(models, sides, device=where, rounds=rounds, warm_up=warm_up)


def _batches(dataset: MaskDataset, size: int) -> Iterator[list[Sample]]:
    """Samples in groups of one shape: padding to the largest of a batch would change the predictions."""
    group: list[Sample] = []
    for sample in _read_ahead(dataset, 2 * size + READERS):
        if group and (len(group) == size or sample[0]["img"].shape != group[0][0]["img"].shape):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


def _read_ahead(dataset: MaskDataset, ahead: int) -> Iterator[Sample]:
    """All samples in their order, read by threads while the network computes, at most ``ahead`` of them early."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[Sample]] = deque()
        for number in range(len(dataset)):
            waiting.append(pool.submit(lambda i: (dataset[i], dataset.load_mask(i)), number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_ids(ids: np.ndarray, target: Path) -> None:
    """Write class ids (h, w) uint8 as a PNG, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        Image.fromarray(ids).save(temporary, format="PNG")
