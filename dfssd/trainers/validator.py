"""Ultralytics' validation of detectors, which compares boxes on the host: one transfer a batch, not seven an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionValidator

_HOST = torch.device("cpu")


class StageValidator(DetectionValidator):
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
