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
from PIL import Image
from torch.utils.data import ConcatDataset, Sampler
from ultralytics.data.build import InfiniteDataLoader, seed_worker
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import exif_size
from ultralytics.utils import RANK

from dfssd.datasets.views import StrongView
from dfssd.errors import UserError
from dfssd.pseudo_labels.labeling import true_boxes
from dfssd.pseudo_labels.labels import PseudoImage, read_pseudo_labels
from dfssd.pseudo_labels.online import TILE_WIDER

IGNORED_BOX, IGNORED_TILE, TRUTH = 0, 1, 2
"""What a box past the last class is: its id is ``nc`` plus one of these (for a true box, plus its class)."""

_TILES = 8
"""An image with nothing accepted is ignored as a whole, by 8 x 8 tiles instead of one box: the geometric augmentations
drop a box of which less than a tenth stays visible, and with it the rest of the image would become background."""


def widen_tiles(boxes: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    """Ignore boxes (M, 4), xywh centre format 0-1, with the tiles among them (``kind`` (M,)) widened.

    A tile covers the tenth of a neighbour that the augmentation has dropped then.
    """
    factor = torch.where(kind == IGNORED_TILE, TILE_WIDER, 1.0)[:, None].to(boxes.dtype)
    return torch.cat([boxes[:, :2], boxes[:, 2:] * factor], dim=1)


def whole_image_tiles(n: int = _TILES) -> np.ndarray:
    """``n * n`` boxes that tile the unit square: (n * n, 4) float32, xywh centre format, 0-1."""
    centres = (np.arange(n, dtype=np.float32) + 0.5) / n
    x, y = np.meshgrid(centres, centres)
    side = np.full(n * n, 1 / n, dtype=np.float32)
    return np.stack([x.ravel(), y.ravel(), side, side], axis=1)


class PseudoLabelDataset(YOLODataset):
    """Unlabelled images, with the pseudo boxes that are known before the training, if any.

    Rows of ``cls`` are (class id, score; for a tile the number of its photo instead). Ids past the last class travel
    through every geometric augmentation with the image and are taken out of the batch again by the trainer
    (:class:`dfssd.trainers.student.StudentTrainer`): ``nc`` is an ignored box, ``nc + 1`` a tile of a photo without
    accepted box, and ``nc + TRUTH + c`` a true box of class ``c``, which benchmarks have and only the health meter
    looks at.

    ``data["pseudo"]`` names a folder written by :func:`write_pseudo_labels`; empty, the boxes are found during the
    training and an image starts without any. ``data["strong_view"]`` is the strength of :class:`StrongView`, 0 for
    none.
    """

    def get_labels(self) -> list[dict[str, Any]]:
        """Label dictionaries from the pseudo-labels, in the order of the image list.

        Raises:
            KeyError: The list names an image without pseudo-label entry (a defect of the caller, not of the user).
        """
        nc = len(self.data["names"])
        strength = self.data.get("strong_view", 0.0)
        self.strong = StrongView(strength) if strength else None
        folder = self.data.get("pseudo")
        known = {str(image.image): image for image in read_pseudo_labels(Path(folder))} if folder else {}
        truth = true_boxes([Path(im_file) for im_file in self.im_files], nc)
        labels = []
        for number, im_file in enumerate(self.im_files):
            if folder:
                rows, shape = _offline_rows(known[im_file], nc, number)
            else:
                rows, shape = _tile_rows(nc, number), _image_shape(im_file)
            real = truth.get(Path(im_file), np.zeros((0, 5)))
            real = np.concatenate([real[:, :1] + nc + TRUTH, np.ones((len(real), 1)), real[:, 1:]], axis=1)
            rows = np.concatenate([rows, real]).astype(np.float32)
            labels.append(
                {
                    "im_file": im_file,
                    "shape": shape,
                    "cls": rows[:, :2],
                    "bboxes": rows[:, 2:],
                    "segments": [],
                    "keypoints": None,
                    "normalized": True,
                    "bbox_format": "xywh",
                }
            )
        return labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Augmented sample: ``img`` is the student's view; with a strong view ``weak_img`` is the teacher's."""
        sample = super().__getitem__(index)
        if self.strong is not None:
            sample["weak_img"] = sample["img"]
            sample["img"] = self.strong(sample["img"])
        rows = sample["cls"].reshape(-1, 2) if len(sample["cls"]) else torch.zeros(0, 2)
        return {**sample, "cls": rows[:, :1], "score": rows[:, 1]}


def _offline_rows(image: PseudoImage, nc: int, number: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Accepted boxes and what is ignored, rows of (id, score, x, y, w, h), and the (height, width) of the image."""
    accepted = image.zones == "accept"
    found = np.concatenate([image.classes[:, None], image.scores[:, None], image.boxes_xywhn], axis=1)
    ignored = found[image.zones == "ignore"]
    ignored[:, 0] = nc + IGNORED_BOX
    return np.concatenate([found[accepted], ignored if accepted.any() else _tile_rows(nc, number)]), (
        image.height,
        image.width,
    )


def _tile_rows(nc: int, number: int) -> np.ndarray:
    """Rows that cover photo ``number`` as a whole, since nothing is accepted in it so far."""
    tiles = whole_image_tiles()
    return np.concatenate([np.tile([nc + IGNORED_TILE, number], (len(tiles), 1)), tiles], axis=1)


def _image_shape(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            width, height = exif_size(image)
    except OSError as e:
        raise UserError(f"cannot read {path}: restore the file, or prepare the data anew with skip_bad=true") from e
    return height, width


class MixedDataset(ConcatDataset):
    """Labelled images, then (optionally) unlabelled ones, with the face of a ``YOLODataset``.

    Each sample gets ``labeled`` (bool) and ``score`` (n,), the weight of its boxes; :attr:`labels` shows only true and
    accepted boxes.
    """

    datasets: list[YOLODataset]

    def __init__(self, labeled: YOLODataset, unlabeled: PseudoLabelDataset | None = None):
        """Put the two datasets side by side; indices below ``len(labeled)`` are labelled."""
        super().__init__([labeled] if unlabeled is None else [labeled, unlabeled])
        self.n_labeled = len(labeled)
        self.nc = len(labeled.data["names"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Augmented sample with the flag ``labeled`` and the scores of its boxes (1 for true ones)."""
        sample = super().__getitem__(index)
        return {"score": torch.ones(len(sample["cls"])), **sample, "labeled": index < self.n_labeled}

    @staticmethod
    def collate_fn(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch as Ultralytics makes it, plus ``score`` (M,), ``labeled`` (N,) and, if any, ``weak_img``.

        ``weak_img`` (U, 3, H, W) holds the teacher's views of the unlabelled images only, in their order.
        """
        own = ("weak_img", "score", "labeled")
        batch = YOLODataset.collate_fn([{k: v for k, v in s.items() if k not in own} for s in samples])
        batch["score"] = torch.cat([s["score"] for s in samples])
        batch["labeled"] = torch.tensor([s["labeled"] for s in samples])
        if weak := [s["weak_img"] for s in samples if "weak_img" in s]:
            batch["weak_img"] = torch.stack(weak)
        return batch

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Labels as Ultralytics' plots and class weights read them, without what is no label to learn."""
        shown = []
        for dataset in self.datasets:
            for label in dataset.labels:
                real = label["cls"][:, 0] < self.nc
                shown.append({**label, "cls": label["cls"][real, :1], "bboxes": label["bboxes"][real]})
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

    def labeled_only(self) -> None:
        """From the next epoch on fill the batches with labelled images alone."""
        (offset, n, labeled), (after, others, unlabeled) = self.parts
        self.parts = ((offset, n, labeled + unlabeled), (after, others, 0))

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
