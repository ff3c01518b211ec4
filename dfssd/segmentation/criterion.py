"""The loss of MFF-Metal with the interface of Ultralytics' trainer; measures the gradient of each part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dfssd.datasets.records import IGNORE
from dfssd.segmentation.losses import SegmentationLoss, cross_entropy
from dfssd.segmentation.model import full_resolution

AUXILIARY = 0.4
"""Weight of the cross entropy of an auxiliary head, as in Ultralytics."""


class BatchLoss:
    """Callable ``(output of a model, batch) -> (loss, parts)``, loss = N * weighted sum, as in Ultralytics' own losses.

    Its trainer sums losses over the images of a batch, hence the factor N.

    Attributes:
        probe: Measure the gradient of each part in the next call.
        gradients: Part -> norm of its gradient at the logits, of the last call with ``probe``.
        values: Part -> its value there.
        applicable: The parts that could have a gradient there: distillation needs a pixel of an image, the boundary
            loss a distance map that is not 0, the others a pixel of known class.
    """

    def __init__(self, loss: SegmentationLoss, *, auxiliary: bool = False):
        """Set the losses.

        Args:
            loss: The weighted losses.
            auxiliary: In training the model returns a second tensor of logits, as Ultralytics' models do, which gets
                a cross entropy of its own (part ``aux``).
        """
        self.loss, self.auxiliary = loss, auxiliary
        self.probe = False
        self.gradients: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self.applicable: set[str] = set()

    def __call__(self, output: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            output: Logits (N, nc, h, w), or (logits, auxiliary logits); brought to the size of the masks.
            batch: ``semantic_mask`` (N, H, W), and where the weights need them ``boundary_maps``
                (N, nc - 1, H, W) and ``teacher_logits`` (N, nc, H', W'); perhaps ``kd_pixels`` (N, H, W) bool.

        Returns:
            The loss, a scalar, and its detached parts by name, always the same names.
        """
        mask = batch["semantic_mask"]
        logits = full_resolution(output, mask.shape[1:]).float()  # a gradient of 1e-8 is 0 in half precision
        teacher = batch.get("teacher_logits")
        given = {
            "maps": batch.get("boundary_maps"),
            "teacher": None if teacher is None else full_resolution(teacher, mask.shape[1:]),
            "kd_pixels": batch.get("kd_pixels"),
        }
        if self.probe:
            self._measure_signal(self.loss.parts(logits, mask, **given), logits, batch)
        total, parts = self.loss(logits, mask, **given)
        if self.auxiliary:
            parts["aux"] = torch.zeros_like(total)
            if isinstance(output, (tuple, list)):  # in training only
                aux = AUXILIARY * cross_entropy(full_resolution(output[1], mask.shape[1:]), mask)
                total, parts["aux"] = total + aux, aux.detach()
        return total * len(mask), parts

    def _measure_signal(self, parts: dict[str, Tensor], logits: Tensor, batch: dict[str, Any]) -> None:
        """Measure value and gradient of each part of the loss in this batch."""
        known = bool((batch["semantic_mask"] != IGNORE).any())
        conditions = {
            "boundary": "boundary_maps" in batch and bool(batch["boundary_maps"].any()),
            "kd": bool(batch["kd_pixels"].any()) if "kd_pixels" in batch else known,
        }
        self.applicable = {name for name in parts if conditions.get(name, known)}
        self.values = {name: float(value.detach()) for name, value in parts.items()}
        self.gradients = {
            name: float(torch.autograd.grad(value, logits, retain_graph=True)[0].norm())
            if logits.requires_grad
            else 0.0
            for name, value in parts.items()
        }
