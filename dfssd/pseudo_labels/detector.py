"""A trained detector for many images of any shape: Ultralytics' prediction, cut into parts that can overlap.

Ultralytics' ``predict`` decodes, computes, and thins out boxes one after the other, image by image. Here each part is a
call of its own, so that the caller runs the first and the last in threads while the device computes:

* :meth:`Detector.prepare` letterboxes an image (host, thread-safe),
* :meth:`Detector.start` sends a batch through the network and does not wait for it,
* :meth:`Detector.finish` waits for the results and returns the boxes of each image.

Boxes, scores and classes are those of ``predict(rect=False)`` in fp32, of YOLO and of RT-DETR; what differs between
them is in :mod:`dfssd.pseudo_labels.families`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.data.augment import LetterBox
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.ops import scale_boxes
from ultralytics.utils.torch_utils import select_device

from dfssd.pseudo_labels.families import family_of
from dfssd.pseudo_labels.suppression import suppress


@dataclass(frozen=True)
class Started:
    """A batch on its way through the network.

    Attributes:
        boxes: All boxes of its images on the host, (B, A, 6): x1, y1, x2, y2 [px of the letterbox], score, class. To be
            read once ``done`` has been waited for.
        done: Waits until ``boxes`` are there.
        side: Side of the letterbox [px].
    """

    boxes: Tensor
    done: Callable[[], None]
    side: int


class Detector:
    """A detection network for inference in fp32, batch normalization folded into its convolutions.

    Attributes:
        family: What its kind has of its own.
    """

    def __init__(self, weights: Path, device: str):
        """Load ``weights``, an Ultralytics checkpoint, to ``device`` (Ultralytics' spelling).

        Raises:
            ValueError: It is of no family that is known.
        """
        self.device = select_device(device, verbose=False)
        # of the two heads of an end-to-end network the one with suppression, as in `predict`
        self.network = AutoBackend(str(weights), device=self.device, fp16=False, verbose=False, end2end=False).eval()
        head: Any = self.network.backend.model.model[-1]
        family = family_of(head)
        if family is None:
            raise ValueError(f"{weights} is no detector whose boxes can be used: its head is {type(head).__name__}")
        self.family = family
        if self.device.type == "cpu":
            self.network.to(memory_format=torch.channels_last)

    @staticmethod
    def prepare(pixels: np.ndarray, side: int, stretched: bool) -> np.ndarray:
        """An image (h, w, 3) uint8 in a square of ``side`` px: stretched to it, or in its middle with gray around."""
        boxed: np.ndarray = LetterBox((side, side), auto=False, scale_fill=stretched)(image=pixels)
        return boxed

    @torch.inference_mode()
    def start(self, prepared: Sequence[np.ndarray]) -> Started:
        """Send images (S, S, 3) uint8 BGR through the network; on a GPU this returns before it has computed."""
        images = torch.from_numpy(np.stack(prepared))
        on_gpu = self.device.type == "cuda"
        images = (images.pin_memory() if on_gpu else images).to(self.device, non_blocking=on_gpu)
        output: Any = self.network(images.permute(0, 3, 1, 2).flip(1).float().div_(255))
        side = int(images.shape[1])
        boxes = self.family.rows(output[0] if isinstance(output, (list, tuple)) else output, side)
        if not on_gpu:
            return Started(boxes.cpu(), lambda: None, side)
        host = torch.empty(boxes.shape, dtype=boxes.dtype, pin_memory=True)
        host.copy_(boxes, non_blocking=True)
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return Started(host, event.synchronize, side)

    def finish(
        self,
        started: Started,
        shapes: Sequence[tuple[int, int]],
        *,
        conf: float,
        iou: float,
        max_det: int,
        each: Callable[..., Iterable[np.ndarray]] = map,
    ) -> list[np.ndarray]:
        """Wait for a batch, drop what is doubtful or repeated, and move the boxes to the images.

        Args:
            started: What :meth:`start` returned.
            shapes: (height, width) of each image before the letterbox [px].
            conf: Lowest score, exclusive.
            iou: IoU above which the box of the lower score is dropped, among boxes of one class.
            max_det: Most boxes of an image.
            each: ``map``, or that of a thread pool.

        Returns:
            For each image (n, 6) float32 by falling score: x1, y1, x2, y2 [px of the image], score, class.
        """
        started.done()
        side = started.side

        def thin_out(boxes: Tensor, shape: tuple[int, int]) -> np.ndarray:
            rows = boxes.numpy()
            rows = rows[rows[:, 4] > conf]
            kept = suppress(rows, iou=iou, max_det=max_det) if self.family.repeats else rows[:max_det]
            if self.family.stretched:
                height, width = shape
                kept[:, :4] *= np.array([width, height, width, height], np.float32) / side
            else:
                scale_boxes((side, side), kept[:, :4], shape)
            return kept

        return list(each(thin_out, started.boxes.unbind(0), shapes))
