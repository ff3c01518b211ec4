"""A detector and its objective in one module, which Ultralytics trains, averages, saves and resumes as its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils.torch_utils import copy_attr

from dfssd.pretraining.objectives import Objective, spread

NETWORK = "student"
"""Name of the only forward pass."""


class Body(nn.Module):
    """A detection model without its head: images (N, 3, H, W), 0 to 1 -> the maps that the head would get."""

    def __init__(self, network: Any):
        """Wrap ``network``, which stays as it is."""
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps, each (N, C_l, H / stride_l, W / stride_l)."""
        head = self.network.model[-1]
        head.forward = list  # for this call only; what would be computed behind it, nobody reads
        try:
            maps: list[Tensor] = self.network(images)
        finally:
            del head.forward
        return maps


class PretrainingModel(DistillationModel):
    """A detector that learns by an objective over the inputs of its head, without boxes and without a teacher.

    total = N * sum_i L_i(images), N images: as Ultralytics sums the losses of detectors

    A subclass of Ultralytics' ``DistillationModel`` for its place in the training loop: ``student_model`` is what a
    checkpoint is stripped to, ``projector`` is restored with it. The head itself gets no gradient.

    Attributes:
        projector (Objective): The objective with the layers that it adds.
        generator (torch.Generator): Source of all random numbers of a step, on the device of the images.
        spreads (list): How different the places of each level are, of the last batch for which ``probe`` was set.
        probe (bool): Measure that in the next loss.
        passes (dict): The forward pass.
        captured (dict): What may stand in for it (:mod:`dfssd.trainers.graphs`).
    """

    student_model: Any
    projector: Objective

    def __init__(self, network: Any, objective: Objective):
        """Wrap a detection model and an objective for its levels."""
        nn.Module.__init__(self)
        self.teacher_model = None
        network.criterion = None  # Ultralytics looks for one
        self.student_model = network
        self.feats_idx = self.get_distill_layers(network)
        self.teacher_feats_idx: list[int] = []
        self._teacher_feats: dict[int, Any] = {}
        self._student_feats: dict[int, Any] = {}
        self._teacher_hooks: list[Any] = []
        self._student_hooks: list[Any] = []
        copy_attr(self, network)
        device = next(network.parameters()).device
        self.projector = objective.to(device)
        self.generator: torch.Generator | None = None
        self.spreads: list[float] = []
        self.probe = False
        self.passes = {NETWORK: Body(network)}
        self.captured: Mapping[str, Callable[[Tensor], list[Tensor]]] = {}

    def _register_feature_hooks(self) -> None:
        """Ultralytics' permanent hooks are not needed: :class:`Body` returns the maps."""

    def __getstate__(self) -> dict[str, Any]:
        """Ultralytics' state without what belongs to the process."""
        return {**super().__getstate__(), "passes": {}, "captured": {}, "generator": None}

    def seed(self, *numbers: int) -> None:
        """Let the random numbers of the next step follow from ``numbers`` alone."""
        if self.generator is None:
            self.generator = torch.Generator(next(self.student_model.parameters()).device)
        value = 0
        for number in numbers:
            value = (value * 1_000_003 + number) % 2**63
        self.generator.manual_seed(value)

    def loss(self, batch: Mapping[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of the objective on ``batch["img"]`` (N, 3, H, W), 0 to 1; nothing else of the batch is read.

        Args:
            batch: The batch.
            preds: Unused; the network has to see what the objective makes of the images.

        Returns:
            Vector of losses to be summed, and the detached items by name.
        """
        images = batch["img"]
        assert self.generator is not None, "seed() comes before every step"
        seen, targets = self.projector.prepare(images, self.generator)
        feats = (self.captured.get(NETWORK) or self.passes[NETWORK])(seen)
        if self.probe:
            self.spreads = [spread(feat) for feat in feats]
        losses = self.projector(feats, targets)
        items = {name: value.detach() for name, value in losses.items()}
        return torch.stack(list(losses.values())) * len(images), items
