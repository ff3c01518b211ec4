"""The frozen segmentation teacher (inference only)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.distillation.pair import state_hash
from dfssd.errors import UserError
from dfssd.segmentation.model import full_resolution, load_semantic
from dfssd.trainers.watch import check_teacher
from dfssd.wording import counted

ROUNDED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.PReLU)
"""Modules that autocast runs in half precision."""


class SegmentationTeacher:
    """Frozen, in evaluation mode, its normalizations folded into the convolutions.

    It is kept outside of the student, so that none of its weights can get into an optimizer, a moving average or a
    checkpoint. Any model of Ultralytics' semantic task can be the teacher.
    """

    def __init__(self, path: str | Path, names: dict[int, str], device: torch.device):
        """Load a checkpoint.

        Args:
            path: The checkpoint.
            names: Class names of the student by id.
            device: Where to run.

        Raises:
            UserError: The file is no segmentation model, or knows other classes.
        """
        model = load_semantic(path)
        if len(model.names) != len(names):
            raise UserError(
                f"teacher {path} has {counted(len(model.names), 'class')}, but the data {len(names)}; train it on the "
                "same ones"
            )
        if differing := [f"{model.names[i]} for {name}" for i, name in names.items() if model.names[i] != name]:
            raise UserError(f"teacher {path} has other classes, or another order: {', '.join(differing)}")
        model = model.fuse(verbose=False).to(device).eval()
        self.model = model.to(memory_format=torch.channels_last).requires_grad_(False)
        self.stride = int(model.stride.max())
        self._precision: torch.dtype | None = None
        self._hash = state_hash(self.model)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, nc, H, W) of images (N, 3, H, W) in [0, 1].

        If its stride does not divide the size, the images are enlarged to the next size that it does.

        Raises:
            UserError: As for :meth:`settle`.
        """
        kind = images.device.type
        self.settle(kind)
        with torch.inference_mode(), torch.autocast(kind, self._precision, enabled=self._precision is not None):
            size = images.shape[2:]
            fitting = [math.ceil(side / self.stride) * self.stride for side in size]
            if fitting != list(size):
                images = F.interpolate(images, fitting, mode="bilinear", align_corners=False)
            return full_resolution(self.model(images), size)

    def settle(self, kind: str) -> None:
        """If autocast is on, round the weights once as it would in every call: of frozen weights it keeps no copies.

        Done by the first call; before a recording of the forward pass, which holds the addresses of the weights.

        Args:
            kind: Type of the device.

        Raises:
            UserError: The weights have changed since loading.
        """
        if self._precision is not None or not torch.is_autocast_enabled(kind):
            return
        check_teacher({}, unchanged=self.unchanged())
        precision = torch.get_autocast_dtype(kind)
        for module in self.model.modules():
            if isinstance(module, ROUNDED):
                module.to(precision)
        self._precision, self._hash = precision, state_hash(self.model)

    def unchanged(self) -> bool:
        """Whether every parameter and buffer is unchanged since loading, bit for bit, but for :meth:`settle`."""
        return state_hash(self.model) == self._hash
