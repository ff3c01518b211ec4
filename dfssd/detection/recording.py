"""Ultralytics' validator of detectors, which also keeps what was found in each image and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import nms, ops

from dfssd.evaluation.detections import Detections, Places
from dfssd.evaluation.settings import numbers_in_list
from dfssd.loading.complete import check_complete

_FOUND = ("tp", "conf", "pred_cls")
"""What is kept of each detection besides its place."""


class RecordingValidator(DetectionValidator):
    """Measures as Ultralytics does, and keeps what is measured and what prediction would answer.

    A validation lets a box have several classes, each with its score, which raises the average precision a little. A
    prediction gives it the class with the highest score. What thresholds do can only be seen in the latter.
    """

    def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
        """Ultralytics' loader, of all images in the list.

        Raises:
            UserError: It has dropped some.
        """
        loader = super().get_dataloader(dataset_path, batch_size)
        check_complete(loader.dataset)
        return loader

    def init_metrics(self, model: Any) -> None:
        """Forget what was kept of another validation."""
        super().init_metrics(model)
        self.measured, self.answered = _Kept(), _Kept()
        self.target_cls: list[np.ndarray] = []
        self.target_boxes: list[np.ndarray] = []
        self.shapes: list[tuple[int, int]] = []
        self.files: list[str] = []

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """The detections that are measured; those of a prediction are kept for :meth:`update_metrics`."""
        a = self.args
        best = nms.non_max_suppression(preds, a.conf, a.iou, max_det=a.max_det, end2end=self.end2end)
        self.answers = [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5]} for x in best]
        found: list[dict[str, Tensor]] = super().postprocess(preds)
        return found

    def update_metrics(self, preds: list[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        """Keep the detections and the true boxes of a batch."""
        super().update_metrics(preds, batch)
        size, measured = batch["img"].shape[2:], self.metrics.stats["tp"][-len(preds) :]
        for number, (pred, answer) in enumerate(zip(preds, self.answers, strict=True)):
            true = self._prepare_batch(number, batch)

            def shares(boxes: Tensor, true: dict[str, Any] = true) -> np.ndarray:
                return _shares(boxes, size, true["ori_shape"], true["ratio_pad"])

            self.measured.add(measured[number], pred, shares(pred["bboxes"]))
            self.answered.add(self._process_batch(answer, true)["tp"], answer, shares(answer["bboxes"]))
            self.target_cls.append(true["cls"].cpu().numpy())
            self.target_boxes.append(shares(true["bboxes"]))
            self.shapes.append((int(true["ori_shape"][0]), int(true["ori_shape"][1])))
            self.files.append(true["im_file"])

    def detections(self) -> Detections:
        """What is measured: a box may have several classes."""
        return self._joined(self.measured)

    def predictions(self) -> Detections:
        """What a prediction answers: a box has one class."""
        return self._joined(self.answered)

    def _joined(self, kept: _Kept) -> Detections:
        lines = numbers_in_list(self.data[self.args.split], self.files)
        target_image = np.repeat(np.arange(len(self.files)), [len(x) for x in self.target_cls])
        return Detections(
            **{name: np.concatenate(getattr(kept, name)) for name in _FOUND},
            image=np.repeat(np.arange(len(self.files)), [len(x) for x in kept.conf]),
            target_cls=np.concatenate(self.target_cls),
            target_image=target_image,
            images=tuple(Path(file).name for file in self.files),
            places=Places(
                box=np.concatenate(kept.boxes),
                target_box=np.concatenate(self.target_boxes),
                target_image=target_image,
                shape=np.array(self.shapes),
                line=np.array(lines),
            ),
        )


class _Kept:
    """Detections, image by image."""

    def __init__(self) -> None:
        self.tp: list[np.ndarray] = []
        self.conf: list[np.ndarray] = []
        self.pred_cls: list[np.ndarray] = []
        self.boxes: list[np.ndarray] = []

    def add(self, tp: np.ndarray, found: dict[str, Tensor], boxes: np.ndarray) -> None:
        """Add those of an image."""
        self.tp.append(tp)
        self.conf.append(found["conf"].cpu().numpy())
        self.pred_cls.append(found["cls"].cpu().numpy())
        self.boxes.append(boxes)


def _shares(boxes: Tensor, size: Any, shape: Any, pad: Any) -> np.ndarray:
    """(K, 4) boxes in pixels of the network's input -> shares of the width and the height of the image."""
    scaled = ops.scale_boxes(size, boxes.detach().float().clone(), shape, ratio_pad=pad).cpu().numpy()
    return np.asarray(scaled / np.array(shape)[[1, 0, 1, 0]])
