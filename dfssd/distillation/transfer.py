"""Boxes go to the device, and numbers come back from it, in one copy each that the host does not wait for.

Every copy of its own costs a launch, and one from pageable memory makes the host wait until the device has done all
work before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

TYPES = {
    np.dtype(np.float32): torch.float32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.bool_): torch.bool,
}
"""The types of arrays that go to a device."""

ALIGNMENT = 16
"""Bytes at a multiple of which each array starts, so that its place can be read as any type."""


def to_device(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Copy arrays to ``device`` at once.

    Args:
        arrays: Arrays of any shapes, by name, of :data:`TYPES`.
        device: Where to; on CUDA through pinned memory, without waiting.

    Returns:
        Tensors of the same types and shapes: views of one buffer.
    """
    starts, end = {}, 0
    for name, array in arrays.items():
        starts[name] = end
        end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    on_cuda = device.type == "cuda"
    buffer = torch.empty(end, dtype=torch.uint8, pin_memory=on_cuda)
    memory = buffer.numpy()
    for name, array in arrays.items():
        memory[starts[name] : starts[name] + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    moved = buffer.to(device, non_blocking=on_cuda)
    return {
        name: moved[starts[name] : starts[name] + array.nbytes].view(TYPES[array.dtype]).view(array.shape)
        for name, array in arrays.items()
    }


class Reading:
    """A tensor on its way to the host; work started after it does not delay it.

    On CUDA the copy is put behind the work that is queued when the reading is made, and :meth:`numpy` waits for that
    copy alone.
    """

    def __init__(self, values: Tensor):
        """Start the copy of ``values``, which must not be changed later."""
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = values.detach().cpu()

    def numpy(self) -> np.ndarray:
        """The values."""
        if self._event is not None:
            self._event.synchronize()
        values: np.ndarray = self._host.numpy()
        return values
