"""Ultralytics' validator of detectors, which also keeps what was found in each image and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import ops

from dfssd.evaluation.detections import Detections, Places
from dfssd.evaluation.settings import numbers_in_list

_STATS = ("tp", "conf", "pred_cls", "target_cls")
"""What Ultralytics' metrics are computed from, image by image; it drops them before the validation ends."""


class RecordingValidator(DetectionValidator):
    """Measures as Ultralytics does; :meth:`detections` has everything that was measured."""

    def init_metrics(self, model: Any) -> None:
        """Forget what was kept of another validation."""
        super().init_metrics(model)
        self.kept: dict[str, list[np.ndarray]] = {name: [] for name in _STATS}
        self.boxes: list[np.ndarray] = []
        self.target_boxes: list[np.ndarray] = []
        self.shapes: list[tuple[int, int]] = []
        self.files: list[str] = []

    def update_metrics(self, preds: list[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        """Keep the detections and the true boxes of a batch."""
        super().update_metrics(preds, batch)
        size = batch["img"].shape[2:]
        for number, pred in enumerate(preds):
            true = ops.xywh2xyxy(batch["bboxes"][batch["batch_idx"] == number].reshape(-1, 4))
            true = true * true.new_tensor(size)[[1, 0, 1, 0]]
            shape, pad = batch["ori_shape"][number], batch["ratio_pad"][number]
            self.boxes.append(_shares(pred["bboxes"], size, shape, pad))
            self.target_boxes.append(_shares(true, size, shape, pad))
            self.shapes.append((int(shape[0]), int(shape[1])))
            self.files.append(batch["im_file"][number])
        for name, kept in self.kept.items():
            kept += self.metrics.stats[name][len(kept) :]

    def detections(self) -> Detections:
        """Everything that was kept."""
        lines = numbers_in_list(self.data[self.args.split], self.files)
        joined = {name: np.concatenate(kept) for name, kept in self.kept.items()}
        found, true = (np.array([len(x) for x in self.kept[name]], int) for name in ("conf", "target_cls"))
        target_image = np.repeat(np.arange(len(true)), true)
        return Detections(
            **joined,
            image=np.repeat(np.arange(len(found)), found),
            target_image=target_image,
            images=tuple(Path(file).name for file in self.files),
            places=Places(
                np.concatenate(self.boxes),
                np.concatenate(self.target_boxes),
                target_image,
                np.array(self.shapes),
                np.array(lines),
            ),
        )


def _shares(boxes: Tensor, size: Any, shape: Any, pad: Any) -> np.ndarray:
    """(K, 4) boxes in pixels of the network's input -> shares of the width and the height of the image."""
    scaled = ops.scale_boxes(size, boxes.detach().float().clone(), shape, ratio_pad=pad).cpu().numpy()
    return np.asarray(scaled / np.array(shape)[[1, 0, 1, 0]])
