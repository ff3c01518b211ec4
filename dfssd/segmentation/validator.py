"""Validation against the masks at their own size; fitness is the mean IoU of the defects."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.models.yolo.semantic import SemanticSegmentationValidator
from ultralytics.utils import LOGGER, ops
from ultralytics.utils.metrics import SemanticMetrics

from dfssd.segmentation.metrics import SegmentationScores, confusion_matrix, segmentation_scores
from dfssd.segmentation.model import full_resolution
from dfssd.trainers.validation_data import beside as kept
from dfssd.trainers.validator import SharedValidator

MIOU_FG, MIOU = "metrics/mIoU_fg", "metrics/mIoU"
"""Columns of ``results.csv``."""

MOST_ONE_HOT = 1 << 26
"""Values of a one-hot matrix that are in memory at once."""

MOST_KEPT = 1 << 29
"""Bytes of decoded masks that are kept."""


def native_classes(output: Tensor, shape: tuple[int, int], ratio_pad: Any) -> Tensor:
    """Predicted class ids of images of one shape at their own size.

    Args:
        output: Logits (n, nc, h, w) of the letterboxed images, or class ids (n, h, w), which some exported files give.
        shape: Height and width of the images [px].
        ratio_pad: Scale and padding of the letterbox, as Ultralytics keeps them.

    Returns:
        (n, H, W) integers. Logits are scaled to the image before the best class is taken.
    """
    if output.dim() == 3:
        return ops.scale_masks(output[:, None].float(), shape, ratio_pad=ratio_pad, mode="nearest")[:, 0].long()
    return ops.scale_masks(output.float(), shape, ratio_pad=ratio_pad).max(1).indices


def pair_counts(truth: Tensor, found: Tensor, nc: int) -> Tensor:
    """:func:`~dfssd.segmentation.metrics.confusion_matrix` of (n, H, W) class ids where they are.

    Elsewhere than on a CPU, counting by value would make the host wait, and adding up in any order gives a warning. A
    product of one-hot matrices does neither, and counts exactly: an image has less than 2^24 pixels.

    Returns:
        (nc, nc) int64.
    """
    if truth.device.type == "cpu":
        return torch.from_numpy(confusion_matrix(truth.numpy(), found.numpy(), nc))
    return _by_products(truth, found, nc)


def _by_products(truth: Tensor, found: Tensor, nc: int) -> Tensor:
    at_once = max(1, MOST_ONE_HOT // (nc * truth[0].numel()))
    parts = [_products(*pair, nc) for pair in zip(truth.split(at_once), found.split(at_once), strict=True)]
    return torch.stack(parts).sum(0)


def _products(truth: Tensor, found: Tensor, nc: int) -> Tensor:
    classes = torch.arange(nc, device=truth.device)[:, None]
    with torch.autocast(truth.device.type, enabled=False):
        true, predicted = ((ids.flatten(1)[:, None] == classes).float() for ids in (truth, found))
        return (true @ predicted.mT).long().sum(0)


def true_mask(file: str, read: Callable[[], np.ndarray], device: torch.device) -> Tensor:
    """A mask (H, W) uint8 on a device, decoded once for all validations of a run, and again if its file has changed.

    Args:
        file: File of the mask.
        read: Decodes it.
        device: Where the mask is wanted.
    """
    stat = os.stat(file)
    key = ("mask", file, stat.st_size, stat.st_mtime_ns, device)
    if key not in kept:
        mask = torch.from_numpy(read()).to(device)
        if sum(own.nbytes for own in kept.values()) + mask.nbytes > MOST_KEPT:
            return mask
        kept[key] = mask
    return kept[key]


class MaskMetrics(SemanticMetrics):
    """Scores of :func:`~dfssd.segmentation.metrics.segmentation_scores` with the interface of Ultralytics' metrics.

    Fitness is the mean IoU of the defects. The matrix counts in integers: Ultralytics' has 32-bit floats, which lose
    counts above 16.8 million pixels of a class.
    """

    scores: SegmentationScores

    def __init__(self, names: dict[int, str] | None = None):
        """Start with empty counts for classes of these names."""
        super().__init__(names or {})
        self.matrix = torch.zeros(self.nc, self.nc, dtype=torch.int64)
        self.scores = segmentation_scores(self.matrix.numpy())

    def process(self, *args: Any, **kwargs: Any) -> None:
        """Compute the scores of what was counted, and draw Ultralytics' plots if asked for."""
        super().process(*args, **kwargs)
        self.scores = segmentation_scores(self.matrix.cpu().numpy())

    def clear_stats(self) -> None:
        """Forget what was counted."""
        self.matrix = torch.zeros_like(self.matrix)

    @property
    def fitness(self) -> float:
        """Mean IoU of the defects, 0 if there is nothing to measure."""
        return self.scores.miou_fg or 0.0

    @property
    def keys(self) -> list[str]:
        """Columns of ``results.csv``."""
        per_class = [f"metrics/IoU({name})".replace(",", " ") for name in self.names.values()]
        return [MIOU_FG, MIOU, "metrics/pixel_acc", *per_class]

    def mean_results(self) -> list[float]:
        """The values of :attr:`keys`, NaN where nothing could be measured."""
        s = self.scores
        values = (s.miou_fg, s.miou_all, s.pixel_accuracy, *s.iou)
        return [float("nan") if value is None else value for value in values]


class MaskValidator(SharedValidator, SemanticSegmentationValidator):
    """Compares predictions with masks at their own size, whatever the input size of the network."""

    metrics: MaskMetrics

    def init_metrics(self, model: Any) -> None:
        """Start a validation."""
        super().init_metrics(model)
        self.metrics = MaskMetrics(self.names)
        self.metrics.matrix = self.metrics.matrix.to(self.device)
        self._index = {file: i for i, file in enumerate(self.dataset.im_files)}

    def postprocess(self, preds: Any) -> Tensor:
        """Keep the logits, and make Ultralytics' class maps of them for its plots."""
        self._output = preds[0] if isinstance(preds, (tuple, list)) else preds
        return super().postprocess(preds)

    def update_metrics(self, preds: Tensor, batch: dict[str, Any]) -> None:
        """Count the pixels of a batch."""
        # the letterbox is cut off in pixels of the input, and Ultralytics' own networks predict at an eighth of it
        output = full_resolution(self._output, batch["img"].shape[2:])
        truths = [self._truth(self._index[file]) for file in batch["im_file"]]
        keys = [(mask.shape, ratio_pad) for mask, ratio_pad in zip(truths, batch["ratio_pad"], strict=True)]
        for (shape, ratio_pad), group in groupby(range(len(keys)), keys.__getitem__):
            numbers = list(group)
            some = slice(numbers[0], numbers[-1] + 1)
            found = native_classes(output[some], (shape[0], shape[1]), ratio_pad)
            self.metrics.matrix += pair_counts(torch.stack(truths[some]), found, self.nc)
        self.seen += len(batch["im_file"])

    def _truth(self, number: int) -> Tensor:
        """The mask of an image on the device, (H, W) uint8."""
        file = self.dataset.labels[number]["mask_file"]
        return true_mask(file, lambda: self.dataset.load_mask(number), self.device)

    def get_desc(self) -> str:
        """Head of the printed table."""
        return ("%22s" + "%11s" * 4) % ("", "Images", "mIoU_fg", "mIoU", "PixAcc")

    def print_results(self) -> None:
        """Print the means."""
        LOGGER.info(("%22s%11i" + "%11.4g" * 3) % ("all", self.seen, *self.metrics.mean_results()[:3]))
