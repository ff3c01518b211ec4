"""Validation against the masks at their own size; fitness is the mean IoU of the defects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.models.yolo.semantic import SemanticSegmentationValidator
from ultralytics.utils import LOGGER, ops
from ultralytics.utils.metrics import SemanticMetrics

from dfssd.segmentation.metrics import SegmentationScores, confusion_matrix, segmentation_scores
from dfssd.segmentation.model import full_resolution

MIOU_FG, MIOU = "metrics/mIoU_fg", "metrics/mIoU"
"""Columns of ``results.csv``."""


def native_ids(output: Tensor, shape: tuple[int, int], ratio_pad: Any) -> np.ndarray:
    """Predicted class ids of one image at its own size.

    Args:
        output: Logits (nc, h, w) of the letterboxed image, or class ids (h, w), which some exported files give.
        shape: Height and width of the image [px].
        ratio_pad: Scale and padding of the letterbox, as Ultralytics keeps them.

    Returns:
        (H, W) uint8. Logits are scaled to the image before the best class is taken.
    """
    if output.dim() == 2:
        ids = ops.scale_masks(output[None, None].float(), shape, ratio_pad=ratio_pad, mode="nearest")[0, 0]
    else:
        ids = ops.scale_masks(output[None].float(), shape, ratio_pad=ratio_pad)[0].max(0).indices
    return ids.byte().cpu().numpy()


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


class MaskValidator(SemanticSegmentationValidator):
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
        for i, file in enumerate(batch["im_file"]):
            truth = self.dataset.load_mask(self._index[file])
            found = native_ids(output[i], truth.shape, batch["ratio_pad"][i])
            self.metrics.matrix += torch.from_numpy(confusion_matrix(truth, found, self.nc)).to(self.device)
        self.seen += len(batch["im_file"])

    def get_desc(self) -> str:
        """Head of the printed table."""
        return ("%22s" + "%11s" * 4) % ("", "Images", "mIoU_fg", "mIoU", "PixAcc")

    def print_results(self) -> None:
        """Print the means."""
        LOGGER.info(("%22s%11i" + "%11.4g" * 3) % ("all", self.seen, *self.metrics.mean_results()[:3]))
