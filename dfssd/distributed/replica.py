"""What Ultralytics' training on several devices lacks for that of CPUs, and for the gradients of the joint batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from ultralytics.utils.loss import v8DetectionLoss

from dfssd.distributed import group


class Replica(DistributedDataParallel):
    """A network with the gradients averaged over the processes, on a CPU as well, where there is no device number."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any):
        """Wrap ``module``; ``device_ids`` count where it is on a GPU."""
        on_cpu = next(module.parameters()).device.type == "cpu"
        super().__init__(module, device_ids=None if on_cpu else device_ids, **options)


@contextlib.contextmanager
def replicas() -> Iterator[None]:
    """In the block, Ultralytics wraps the network that it sets up as a :class:`Replica`."""
    nn.parallel.DistributedDataParallel = Replica  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        nn.parallel.DistributedDataParallel = DistributedDataParallel  # type: ignore[misc]


def share_normalizers(model: Any) -> None:
    """Let the detection loss of ``model`` be normalized over the joint batch of all processes.

    Ultralytics divides the loss of each process by the target scores of its own images, so a box counts more where
    there are few. Here the sum is that of the target scores of all processes: the gradient is that of one process with
    all images (:func:`dfssd.distributed.group.normalizer`).

    Args:
        model: In training, with the criterion of Ultralytics or none yet; one with another loss is left alone.
    """
    network = getattr(model, "student_model", model)
    if getattr(network, "criterion", None) is None:
        network.criterion = network.init_criterion()
    criterion = network.criterion
    for branch in (criterion, getattr(criterion, "one2many", None), getattr(criterion, "one2one", None)):
        if isinstance(branch, v8DetectionLoss):
            _share(branch)


def _share(branch: Any) -> None:
    """Normalize one branch of a detection loss over the joint batch."""
    compute, scores = branch.get_assigned_targets_and_loss, [torch.zeros(())]

    def note(_: nn.Module, __: Any, assigned: tuple[Tensor, ...]) -> None:
        scores[0] = assigned[2].sum().float()  # half precision, or not, where there is no box

    def shared(*args: Any, **kwargs: Any) -> tuple[Any, Tensor, dict[str, Tensor]]:
        assigned, loss, items = compute(*args, **kwargs)
        if not torch.is_grad_enabled():  # in a validation each process has its own number of batches
            return assigned, loss, items
        factor = scores[0].clamp(min=1) / group.normalizer(scores[0])
        return assigned, loss * factor, {name: value * factor for name, value in items.items()}

    branch.assigner.register_forward_hook(note)
    branch.get_assigned_targets_and_loss = shared
