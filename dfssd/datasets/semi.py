"""Training data that mixes labelled and pseudo-labelled images at a fixed ratio in every batch.

Two Ultralytics datasets stand side by side, so that a mosaic is made of labelled images only or of pseudo-labelled
images only, and "labelled" stays a property of a whole training image. The sampler lays out every batch as labelled
images first, then unlabelled ones, and makes an epoch a *number of batches*, which is how the labelled-only baseline
is given exactly the optimizer steps of the student.

Pseudo-labelled images never reach Ultralytics' label reader: a missing label file would be read as "defect-free".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Sampler
from ultralytics.data.build import InfiniteDataLoader, seed_worker
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import RANK

from dfssd.pseudo_labels.labels import read_pseudo_labels

IGNORED_BOX, IGNORED_TILE = 0, 1
"""What an ignore box is: its class id is ``nc`` plus one of these."""

_TILES = 8
"""An image with nothing accepted is ignored as a whole, by 8 x 8 tiles instead of one box: the geometric augmentations
drop a box of which less than a tenth stays visible, and with it the rest of the image would become background."""

_WIDER = 1.5
"""Each tile is widened by that factor after the augmentation, to cover the tenth of a dropped neighbour."""


def widen_tiles(boxes: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """Ignore boxes (M, 4), xywh centre format 0-1, with the tiles among them (``kind`` (M,)) widened."""
    factor = torch.where(kind == IGNORED_TILE, _WIDER, 1.0)[:, None].to(boxes.dtype)
    return torch.cat([boxes[:, :2], boxes[:, 2:] * factor], dim=1)


def whole_image_tiles(n: int = _TILES) -> np.ndarray:
    """``n * n`` boxes that tile the unit square: (n * n, 4) float32, xywh centre format, 0-1."""
    centres = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = np.meshgrid(centres, centres)
    side = np.full(n * n, 1 / n, dtype=np.float32)
    return np.stack([x.ravel(), y.ravel(), side, side], axis=1)


class PseudoLabelDataset(YOLODataset):
    """Unlabelled images with the pseudo boxes of a folder written by :func:`write_pseudo_labels`.

    Accepted boxes carry their class id. Ignored ones carry ``nc`` (a box) or ``nc + 1`` (a tile of an image without
    accepted box), past the last class, so that they pass through every geometric augmentation with the image; the
    trainer takes them out of the batch again (:class:`dfssd.trainers.student.StudentTrainer`). ``data["pseudo"]``
    names the folder.
    """

    def get_labels(self) -> list[dict[str, Any]]:
        """Label dictionaries from the pseudo-labels, in the order of the image list.

        Raises:
            KeyError: The list names an image without pseudo-label entry (a defect of the caller, not of the user).
        """
        nc = len(self.data["names"])
        known = {str(image.image): image for image in read_pseudo_labels(Path(self.data["pseudo"]))}
        labels = []
        for im_file in self.im_files:
            image = known[im_file]
            accepted = image.zones == "accept"
            ignored, kind = image.boxes_xywhn[image.zones == "ignore"], IGNORED_BOX
            if not accepted.any():
                ignored, kind = whole_image_tiles(), IGNORED_TILE
            cls = np.concatenate([image.classes[accepted], np.full(len(ignored), nc + kind)]).astype(np.float32)
            boxes = np.concatenate([image.boxes_xywhn[accepted], ignored]).astype(np.float32).reshape(-1, 4)
            labels.append(
                {
                    "im_file": im_file,
                    "shape": (image.height, image.width),
                    "cls": cls[:, None],
                    "bboxes": boxes,
                    "segments": [],
                    "keypoints": None,
                    "normalized": True,
                    "bbox_format": "xywh",
                }
            )
        return labels


class MixedDataset(ConcatDataset):
    """Labelled images, then (optionally) pseudo-labelled ones, with the face of a ``YOLODataset``.

    Each sample gets ``labeled`` (bool); :attr:`labels` shows only true and accepted boxes.
    """

    datasets: list[YOLODataset]
    collate_fn = staticmethod(YOLODataset.collate_fn)

    def __init__(self, labeled: YOLODataset, unlabeled: PseudoLabelDataset | None = None):
        """Put the two datasets side by side; indices below ``len(labeled)`` are labelled."""
        super().__init__([labeled] if unlabeled is None else [labeled, unlabeled])
        self.n_labeled = len(labeled)
        self.nc = len(labeled.data["names"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Augmented sample with the flag ``labeled``."""
        return {**super().__getitem__(index), "labeled": index < self.n_labeled}

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels as Ultralytics' plots and class weights read them, without the ignore boxes."""
        shown = []
        for dataset in self.datasets:
            for label in dataset.labels:
                real = label["cls"][:, 0] < self.nc
                shown.append({**label, "cls": label["cls"][real], "bboxes": label["bboxes"][real]})
        return shown

    def close_mosaic(self, hyp: Any) -> None:
        """Stop the mosaic augmentation in both datasets (Ultralytics does so for the last epochs)."""
        for dataset in self.datasets:
            dataset.close_mosaic(hyp)


class MixedSampler(Sampler[int]):
    """Endless permutations of both parts, cut into batches of a fixed composition.

    Batch ``b`` of epoch ``e`` takes the next ``labeled_per_batch`` labelled and ``unlabeled_per_batch`` unlabelled
    images of two streams; each stream runs through its part in a fresh permutation again and again, without regard to
    epochs, so every image is seen equally often. The streams depend on (seed, position) alone: a resumed run goes on
    exactly where it stopped, and the ranks of a multi-GPU run take disjoint slices of each batch.
    """

    def __init__(
        self,
        n_labeled: int,
        n_unlabeled: int,
        *,
        labeled_per_batch: int,
        unlabeled_per_batch: int,
        batches: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        """Set the sizes of the parts [images], the batch composition per process and the batches per epoch."""
        self.parts = ((0, n_labeled, labeled_per_batch), (n_labeled, n_unlabeled, unlabeled_per_batch))
        self.batches, self.seed, self.rank, self.world = batches, seed, rank, world
        self.epoch = 0

    def __len__(self) -> int:
        """Images per epoch and process."""
        return self.batches * sum(per_batch for _, _, per_batch in self.parts)

    def set_epoch(self, epoch: int) -> None:
        """Ignored: Ultralytics calls it once per epoch, when loader workers may already be an epoch ahead.

        The sampler counts its own epochs; :attr:`epoch` is set once, before the first batch.
        """

    def _stream(self, part: int, positions: np.ndarray) -> list[int]:
        offset, n, _ = self.parts[part]
        picked = np.empty(len(positions), dtype=np.int64)
        blocks = positions // n
        for block in np.unique(blocks):
            order = np.random.default_rng((self.seed, part, int(block))).permutation(n)
            here = blocks == block
            picked[here] = order[positions[here] % n]
        return (offset + picked).tolist()

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch, batch after batch, labelled ones first within each batch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        columns = []
        for part, (_, _, per_batch) in enumerate(self.parts):
            batch = epoch * self.batches + np.arange(self.batches)
            start = (batch * self.world + self.rank) * per_batch
            positions = (start[:, None] + np.arange(per_batch)[None]).ravel()
            columns.append(np.reshape(self._stream(part, positions), (self.batches, per_batch)).astype(np.int64))
        yield from np.concatenate(columns, axis=1).ravel().tolist()


def batch_composition(batch: int, unlabeled_share: float) -> tuple[int, int]:
    """Labelled and unlabelled images in a batch of ``batch``; at least one of each when the share is above 0.

    Args:
        batch: Images per batch, at least 2 if ``unlabeled_share`` > 0.
        unlabeled_share: Share of unlabelled images, in [0, 1).
    """
    unlabeled = round(batch * unlabeled_share)
    if unlabeled_share > 0:
        unlabeled = min(max(unlabeled, 1), batch - 1)
    return batch - unlabeled, unlabeled


def build_mixed_loader(
    dataset: MixedDataset, sampler: MixedSampler, *, batch: int, workers: int, pin_memory: bool
) -> InfiniteDataLoader:
    """Ultralytics' endless loader over ``dataset`` in the order of ``sampler``; ``batch`` is per process."""
    generator = torch.Generator()
    generator.manual_seed(6148914691236517205 + sampler.seed + RANK)
    return InfiniteDataLoader(
        dataset=dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        collate_fn=dataset.collate_fn,
        worker_init_fn=seed_worker,
        generator=generator,
    )
