"""The part of a trainer that lets several processes train together, as torchrun has started them.

Ultralytics trains on the GPUs of one machine, whose number it takes from ``device``, and starts a process for each of
them itself. Here the processes are there, and connected (:mod:`dfssd.distributed`): on GPUs of several machines, or on
CPUs. The loss of each is normalized over the joint batch, so that their gradients add up to that of one process.
"""

from __future__ import annotations

from typing import Any

import torch
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.distributed import group
from dfssd.distributed.crew import own_gpu
from dfssd.distributed.replica import replicas, share_normalizers
from dfssd.errors import UserError


class SharedTrainer(BaseTrainer):
    """Ultralytics' trainer with the processes of torchrun in the place of its own."""

    world_size: int
    device: torch.device
    model: Any

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict | None = None, _callbacks: dict | None = None):
        """Build the Ultralytics trainer on the device of this process.

        Raises:
            UserError: There are several devices, but one process.
        """
        super().__init__(cfg, overrides, _callbacks)
        if group.several():
            self.world_size = group.world()
            if self.device.type == "cuda":
                self.device = torch.device("cuda", own_gpu(self.args.device))
        elif self.ddp:
            raise UserError(f"device={self.args.device}: a training in one process takes one device")

    def _setup_ddp(self) -> None:
        """The processes are connected already."""

    def _setup_train(self) -> None:
        """Ultralytics' setup; the network is wrapped on CPUs as well, and its loss is that of the joint batch."""
        with replicas():
            super()._setup_train()
        if group.several():
            share_normalizers(unwrap_model(self.model))
