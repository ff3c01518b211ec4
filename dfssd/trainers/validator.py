"""Ultralytics' validation of detectors, which compares boxes on the host: one transfer a batch, not seven an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.yolo.detect import DetectionValidator

from dfssd.distributed import group

_HOST = torch.device("cpu")


class SharedValidator(BaseValidator):
    """Lets several processes of a training share the images of a validation; the first one gets the scores."""

    dataloader: Any
    training: bool

    def __call__(self, trainer: Any = None, model: Any = None, **kwargs: Any) -> Any:
        """Ultralytics' validation; the losses are averaged in :meth:`gather_stats`, since gloo knows no mean."""
        if trainer is None or not group.several():
            return super().__call__(trainer, model, **kwargs)
        trainer.world_size = 1  # Ultralytics averages them otherwise
        try:
            return super().__call__(trainer, model, **kwargs)
        finally:
            trainer.world_size = group.world()

    def gather_stats(self) -> None:
        """Ultralytics' statistics of all processes, and the losses as the mean over the batches of all of them."""
        super().gather_stats()
        if self.training and group.several():
            *sums, batches = group.total(np.array([*map(float, self.loss.values()), len(self.dataloader)])).tolist()
            mine = len(self.dataloader)  # what Ultralytics divides by
            for name, value in zip(self.loss, sums, strict=True):
                self.loss[name] = torch.full_like(self.loss[name], value * mine / batches)


class StageValidator(SharedValidator, DetectionValidator):
    """Gives the numbers of Ultralytics' validator; on a GPU it does not wait for each image."""

    device: torch.device

    def update_metrics(self, preds: list[dict[str, Tensor]], batch: dict[str, Any]) -> None:
        """Ultralytics' comparison with the true boxes, on the host."""
        device = self.device
        if device.type != _HOST.type:
            preds = to_host(preds)
            batch = {k: v.to(_HOST) if isinstance(v, Tensor) and k != "img" else v for k, v in batch.items()}
        self.device = _HOST
        try:
            super().update_metrics(preds, batch)
        finally:
            self.device = device


def to_host(preds: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The predictions of a batch, a dictionary for each image, in the memory of the host; one transfer for all."""
    rows = [torch.cat([p["bboxes"], p["conf"][:, None], p["cls"][:, None], p["extra"]], 1) for p in preds]
    moved = torch.cat(rows).to(_HOST).split([len(row) for row in rows])
    return [{"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in moved]
