"""What a teacher may have found in the images of a batch, before non-maximum suppression, for the host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dfssd.distillation.grid import bin_values
from dfssd.distillation.outputs import Confidence
from dfssd.distillation.transfer import Reading


class Candidates:
    """Anchors with a score above a threshold, on their way to the host.

    Only the distributions of these anchors are evaluated, and in fp32: under half precision a head rounds coordinates
    to as much as 4 px in an image of 640 px.
    """

    def __init__(self, boxes: Tensor, confidence: Confidence, images: slice, threshold: float):
        """Pick the anchors; the host waits once, for their number.

        Args:
            boxes: Box logits of all images, (N, 4 * bins, A); with one bin the distances themselves.
            confidence: Scores and classes of the anchors of all images.
            images: The images to look at.
            threshold: Least score, exclusive.
        """
        with torch.no_grad(), torch.autocast(boxes.device.type, enabled=False):
            index = (confidence.each[images] > threshold).nonzero()
            image, anchor = index.unbind(1)
            rows = boxes[images].transpose(1, 2)[image, anchor].float()
            bins = boxes.shape[1] // 4
            if bins > 1:
                rows = rows.view(-1, 4, bins).softmax(2) @ bin_values(bins, rows.device)
            score, best = (values[images][image, anchor][:, None] for values in (confidence.each, confidence.best))
            self._table = Reading(torch.cat([rows, score, best, index], 1))  # indices are exact in fp32 up to 2**24

    def decoded(self, levels: Sequence[tuple[int, int]], strides: Sequence[int]) -> np.ndarray:
        """The boxes as Ultralytics' head decodes them; waits until they are on the host.

        Args:
            levels: (height, width) of each level [cells].
            strides: Size of the cells of each level [px].

        Returns:
            (C, 7) float32: x1, y1, x2, y2 [px], score in (0, 1), class, image, counted from the first one looked at.
        """
        table = self._table.numpy()
        points, size = _points(tuple(levels), tuple(strides))
        anchor = table[:, 7].astype(np.int64)
        low, high = points[anchor] - table[:, :2], points[anchor] + table[:, 2:4]
        center, half = (low + high) / 2 * size[anchor], (high - low) * size[anchor] / 2
        return np.concatenate([center - half, center + half, table[:, 4:7]], 1)


@lru_cache(maxsize=64)
def _points(levels: tuple[tuple[int, int], ...], strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(A, 2) x, y of the anchors [cells], and (A, 1) their strides [px], float32."""
    points, sizes = [], []
    for (height, width), stride in zip(levels, strides, strict=True):
        y, x = np.divmod(np.arange(height * width, dtype=np.float32), width)
        points.append(np.stack([x, y], 1) + np.float32(0.5))
        sizes.append(np.full((height * width, 1), stride, np.float32))
    return np.concatenate(points), np.concatenate(sizes)
