"""Pseudo-labels of a training batch, from the forward pass of the teacher that the distillation needs anyway."""

from __future__ import annotations

import numpy as np

from dfssd.batches import NO_TILE, TILE_WIDER
from dfssd.datasets.overlap import box_iou, covered_share
from dfssd.distributed import group
from dfssd.pseudo_labels.records import BatchLabels
from dfssd.pseudo_labels.suppression import suppress
from dfssd.pseudo_labels.teacher_inference import normalize_boxes
from dfssd.pseudo_labels.thresholds import ACCEPT, IGNORE, ClassThresholds

SAME_BOX = 0.5
"""Minimum IoU at which a box of the teacher counts as the same as a known box."""

MEETS_LABEL = 0.5
"""Share of the smaller box from which a box of the teacher and a labeled defect of another class may be one defect."""


class OnlineLabeler:
    """Turns the teacher's predictions into accepted and ignored boxes, for unlabeled images and beside labels.

    The class thresholds are updated with every batch (:class:`ClassThresholds`), with that of all processes of a
    training, and then applied to it.

    Attributes:
        thresholds: The thresholds; their state is part of a training's state.
    """

    def __init__(self, thresholds: ClassThresholds, *, iou: float, max_det: int = 300):
        """Set the rule.

        Args:
            thresholds: Thresholds to start from.
            iou: IoU of the non-maximum suppression.
            max_det: Maximum number of boxes per image.
        """
        self.thresholds, self.iou, self.max_det = thresholds, iou, max_det

    def __call__(
        self,
        candidates: np.ndarray,
        images: np.ndarray,
        size: tuple[int, int],
        known: BatchLabels,
        first_unlabeled: int = 0,
    ) -> BatchLabels:
        """Label images of one batch, on the host.

        A labeled image has all boxes of the classes that its labels cover, and none of the teacher's classes. A box of
        the teacher that meets one of them is ignored: the teacher, which does not know that defect, may have taken it
        for another. Where the teacher sees nothing there is nothing of its classes: no labeled image is ignored as a
        whole.

        Args:
            candidates: (C, 7) float32, what the teacher has found, before non-maximum suppression: x1, y1, x2, y2 [px],
                score, class, and place of the image in ``images``, in rising order.
            images: (U,) number of each image in the batch.
            size: Height and width of the images [px].
            known: Boxes that these images already have; a box of the teacher that matches one of them (same class,
                IoU >= 0.5) is not added again, and their ignored boxes are kept. A training image may be a mosaic of
                several photos, each covered by tiles: those of a photo in which a box is accepted now are removed.
            first_unlabeled: Number of the first unlabeled image of the batch; the labeled ones come first.

        Returns:
            :class:`BatchLabels`, sorted by image, with the known boxes included.
        """
        candidates = candidates[candidates[:, 4] > self.thresholds.tau_low]
        by_image = np.split(candidates, np.flatnonzero(np.diff(candidates[:, 6])) + 1)
        raw = np.concatenate([suppress(rows, iou=self.iou, max_det=self.max_det) for rows in by_image])
        raw = raw.astype(np.float64)
        raw[:, 6] = images[raw[:, 6].astype(int)]
        boxes, kept = normalize_boxes(raw[:, :4], width=size[1], height=size[0])
        table = np.concatenate([boxes, raw[kept, 4:]], 1)  # x y w h score class image
        classes = table[:, 5].astype(int)
        self.thresholds.add(*group.total(np.stack(self.thresholds.count(classes, table[:, 4]))))
        zones = self.thresholds.zone(classes, table[:, 4])
        old = known.table()
        zones[(zones == ACCEPT) & _meets(table, old[old[:, 6] < first_unlabeled])] = IGNORE
        accepted, ignored = table[zones == ACCEPT], table[zones == IGNORE]
        accepted = np.concatenate([old, accepted[~_among(accepted, old)]])
        tiles, tile_images = known.ignore_bboxes, known.ignore_batch_idx
        kept_tiles = _still_ignored(tiles, tile_images, known.ignore_source, accepted)
        accepted = accepted[np.argsort(accepted[:, 6], kind="stable")]
        empty = np.setdiff1d(images[images >= first_unlabeled], accepted[:, 6])
        whole = np.tile([0.5, 0.5, 1.0, 1.0], (len(empty), 1))
        ignore = np.concatenate([ignored[:, :4], tiles[kept_tiles], whole])
        ignore_images = np.concatenate([ignored[:, 6], tile_images[kept_tiles], empty])
        order = np.argsort(ignore_images, kind="stable")
        columns = {
            "batch_idx": accepted[:, 6],
            "cls": accepted[:, 5:6],
            "bboxes": accepted[:, :4],
            "score": accepted[:, 4],
            "ignore_batch_idx": ignore_images[order],
            "ignore_bboxes": ignore[order],
            "ignore_source": np.full(len(ignore), NO_TILE),  # no longer tiles: not removed later
        }
        return BatchLabels(**{name: values.astype(np.float32) for name, values in columns.items()})


def _among(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of ``rows`` (n, 7) [x y w h score class image] are among ``known`` (m, 7): (n,) bool."""
    if not len(rows) or not len(known):
        return np.zeros(len(rows), dtype=bool)
    same = (rows[:, None, 5:] == known[None, :, 5:]).all(2)
    found: np.ndarray = (same & (box_iou(rows[:, :4], known[:, :4]) >= SAME_BOX)).any(1)
    return found


def _meets(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which of ``rows`` (n, 7) may be the same defect as one of ``labels`` (m, 7) of their image: (n,) bool."""
    same_image = rows[:, None, 6] == labels[None, :, 6]
    met: np.ndarray = (same_image & (covered_share(rows[:, :4], labels[:, :4]) >= MEETS_LABEL)).any(1)
    return met


def _still_ignored(tiles: np.ndarray, images: np.ndarray, sources: np.ndarray, accepted: np.ndarray) -> np.ndarray:
    """Which ignored boxes are not tiles, or tiles of photos without an accepted box.

    Args:
        tiles: (K, 4) ignored boxes; a widened tile reaches past its photo, which is covered by the unwidened tiles.
        images: (K,) training image of each.
        sources: (K,) its photo, -1 for a box that is not a tile.
        accepted: (M, 7) accepted boxes [x y w h score class image].

    Returns:
        (K,) bool.
    """
    inside = (np.abs(accepted[None, :, :2] - tiles[:, None, :2]) <= tiles[:, None, 2:] / TILE_WIDER / 2).all(2)
    hit = (inside & (accepted[None, :, 6] == images[:, None])).any(1) & (sources >= 0)
    place = np.stack([images, sources], 1)
    found = {tuple(row) for row in place[hit].tolist()}
    return np.array([source < 0 or (image, source) not in found for image, source in place.tolist()], dtype=bool)
