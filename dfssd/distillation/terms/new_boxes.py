"""Where the boxes of a step with new classes are, and where they are not."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dfssd.batches import Batch
from dfssd.distillation.terms.regions import axes, in_images, match_anchors, places_inside


def apart_from_new(batch: Batch, n: int, levels: Sequence[tuple[int, int]], known: int) -> Tensor:
    """Anchors whose point lies in no box of a new class.

    In these boxes the labels say what is to be learned, and the teacher, which does not know these defects, may take
    them for others.

    Args:
        batch: ``cls``, ``bboxes`` and ``batch_idx``.
        n: Images in the batch.
        levels: (height, width) of each level [cells].
        known: Number of classes that the teacher knows; those from there on are new.

    Returns:
        (n, A) bool.
    """
    new = batch["cls"].flatten() >= known
    boxes = batch["bboxes"].float()[new]
    return ~places_inside(boxes, batch["batch_idx"][new], n, axes(tuple(levels), boxes.dtype, boxes.device))


def regression_weights(
    boxes: Tensor, image: Tensor, n: int, levels: list[tuple[int, int]], *, fallback: bool = True
) -> Tensor:
    """Weights of the anchors for the boxes of a batch: dual-stage selection, weighted by overlap.

    Stage 1: the anchors next to the center of a box, on each level; stage 2: those of them that overlap it more than
    usual (:func:`~dfssd.distillation.terms.regions.match_anchors`). A box that gets none takes its best one, which is
    not rare on the three levels of a YOLO head.

    Args:
        boxes: (M, 4) corners as shares of the image.
        image: (M,) image of each.
        n: Images.
        levels: (height, width) of each level [cells].
        fallback: Give a box without any anchor its best one.

    Returns:
        (n, A): the largest IoU of an anchor's square with a box that it was chosen for; 0 if it was not.
    """
    match = match_anchors(boxes, levels)
    chosen = match.positive
    if fallback:
        chosen = chosen | (match.best & ~chosen.any(1, keepdim=True))
    weight = match.iou * chosen
    out = weight.new_zeros(n, weight.shape[1])
    return out.scatter_reduce(0, image[:, None].expand_as(weight), weight, "amax")


def feature_region(boxes: Tensor, image: Tensor, n: int, levels: list[tuple[int, int]], share: float = 0.5) -> Tensor:
    """Anchors that overlap a box at least ``share`` times as much as the best one does.

    The threshold is relative to each box, so boxes that no anchor fits well, small or long ones, get anchors as well.

    Args:
        boxes: (M, 4) corners as shares of the image.
        image: (M,) image of each.
        n: Images.
        levels: (height, width) of each level [cells].
        share: Of the largest overlap, [0, 1).

    Returns:
        (n, A) bool.
    """
    iou = match_anchors(boxes, levels).iou
    best = iou.amax(1, keepdim=True) if len(boxes) else iou.new_zeros(0, 1)
    return in_images((iou > share * best) & (iou > 0), image, n)
