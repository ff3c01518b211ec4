"""Images with masks, and images without, as Ultralytics datasets with our own views.

It differs from Ultralytics' semantic dataset in training:

* the long side is scaled to ``imgsz``, as in validation and prediction (Ultralytics scales the short side in training
  alone: a strip of 1600x256 px would be six times as large in training as in tests), the rest of the square is ignored;
* the views are those of :mod:`dfssd.segmentation.views`, instead of mosaics and the like;
* distance maps for the boundary loss, on request, are computed once for each image, and move with its pixels;
* images without masks take part: their classes are unknown, but all their pixels serve distillation.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from ultralytics.data.dataset import SemanticDataset, YOLODataset

from dfssd.datasets.records import IGNORE
from dfssd.segmentation.boundary import distance_maps
from dfssd.segmentation.device_views import MaskViews
from dfssd.segmentation.views import Views, center, pad_to_square
from dfssd.trainers.mixed_data import MixedDataset
from dfssd.trainers.views import StrongView

MOST_MAPS = 1 << 28
"""Bytes of distance maps that a process keeps for later views; those of further images are computed for every view."""


class MaskDataset(SemanticDataset):
    """Images with masks.

    ``data`` is an Ultralytics data dictionary with ``masks_dir``, and for training with ``symmetries`` and ``jitter``
    (see :class:`~dfssd.segmentation.views.Views`) and ``boundary``, whether distance maps are wanted.

    Training samples hold ``img`` (3, S, S) uint8 RGB, ``semantic_mask`` (S, S) int32, ``kd_pixels`` (S, S) bool,
    those used for distillation, and perhaps ``boundary_maps`` (nc - 1, S, S) float32. Other samples are Ultralytics'.
    """

    def load_image(self, i: int, rect_mode: bool = True) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Image (h, w, 3), its size in the file and here (height, width); the long side is ``imgsz``."""
        return YOLODataset.load_image(self, i, rect_mode=rect_mode)

    def build_transforms(self, hyp: Any) -> Any:
        """Our view in training, Ultralytics' letterbox otherwise."""
        if not self.augment:
            return super().build_transforms(hyp)
        self.views = Views(symmetries=self.data["symmetries"], jitter=self.data["jitter"])
        self._kept_maps: dict[int, dict[int, np.ndarray]] = {}
        self._kept_bytes = 0
        return self._view

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Ultralytics' dictionary, in training with the distance maps of the classes that the mask holds, if wanted."""
        label: dict[str, Any] = super().get_image_and_label(index)
        if self.augment and self.data.get("boundary"):
            label["distances"] = self._distances(index, label["semantic_mask"])
        return label

    def _distances(self, index: int, mask: np.ndarray) -> dict[int, np.ndarray]:
        """Row of :func:`distance_maps` -> map (h, w), but for rows of zeros."""
        if index in self._kept_maps:
            return self._kept_maps[index]
        maps = distance_maps(mask, len(self.data["names"]))
        found = {row: own.copy() for row, own in enumerate(maps) if own.any()}
        size = sum(own.nbytes for own in found.values())
        if self._kept_bytes + size <= MOST_MAPS:
            self._kept_maps[index] = found
            self._kept_bytes += size
        return found

    def _view(self, label: dict[str, Any]) -> dict[str, Any]:
        image, mask, real = pad_to_square(label["img"], label["semantic_mask"], self.imgsz)
        distances: dict[int, np.ndarray] = label.get("distances", {})
        squares = [center(own, self.imgsz, 0) for own in distances.values()]
        image, (mask, real, *squares) = self.views(np.ascontiguousarray(image[..., ::-1]), [mask, real, *squares])
        sample = {
            "im_file": label["im_file"],
            "ori_shape": label["ori_shape"],
            "img": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "semantic_mask": torch.from_numpy(mask.astype(np.int32)),
            "kd_pixels": torch.from_numpy(self._kd_pixels(mask, real)),
        }
        if self.data.get("boundary"):
            maps = np.zeros((len(self.data["names"]) - 1, *mask.shape), np.float32)
            for row, square in zip(distances, squares, strict=True):
                maps[row] = square
            sample["boundary_maps"] = torch.from_numpy(maps)
        return sample

    def _kd_pixels(self, mask: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Pixels with a known class: where a mask is marked as ignored, nothing is to be learned."""
        return mask != IGNORE

    @property
    def id_files(self) -> list[str]:
        """Where the ids of :meth:`with_ids` come from, for each image."""
        return [label["mask_file"] for label in self.labels]

    def with_ids(self, index: int) -> np.ndarray:
        """An image of a training data set with the class id of each pixel as fourth byte, (h, w, 4) uint8, BGR."""
        plain = copy.copy(self)
        plain.augment = False  # else it keeps what it has read for its mosaics, and adds distance maps
        label = plain.get_image_and_label(index)
        return np.dstack([label["img"], label["semantic_mask"]])


class UnlabeledDataset(MaskDataset):
    """Images without masks, for training: every pixel has the id 255, and all serve distillation.

    With ``strong_view`` in ``data``, the strength of a :class:`~dfssd.trainers.views.StrongView`, ``img`` is what the
    student sees and ``weak_img``, the same pixels without it, what the teacher sees.
    """

    def build_transforms(self, hyp: Any) -> Any:
        """The views, and the strong view if there is one."""
        strength = self.data.get("strong_view")
        self.strong = StrongView(strength) if strength else None
        return super().build_transforms(hyp)

    def _view(self, label: dict[str, Any]) -> dict[str, Any]:
        sample = super()._view(label)
        if self.strong is not None:
            sample["weak_img"] = sample["img"]
            sample["img"] = self.strong(sample["img"])
        return sample

    def get_labels(self) -> list[dict[str, Any]]:
        """An empty label dictionary per image; there are no files to read."""
        return [
            {
                "im_file": file,
                "mask_file": "",
                "mode": "L",
                "cls": np.zeros(0, np.float32),
                "bboxes": np.zeros((0, 4), np.float32),
                "segments": [],
                "normalized": True,
                "bbox_format": "xywh",
            }
            for file in self.im_files
        ]

    def load_mask(self, index: int, image_shape: tuple[int, int] | None = None) -> np.ndarray:
        """A mask of ``image_shape`` (h, w) with all pixels ignored, uint8."""
        assert image_shape is not None, "without a mask file the size must be given"
        return np.full(image_shape, IGNORE, np.uint8)

    @property
    def id_files(self) -> list[str]:
        """There are none."""
        return ["none"] * len(self)

    def with_ids(self, index: int) -> np.ndarray:
        """An image (h, w, 4), its fourth byte 0: it tells the pixels of the image from those around it."""
        image = super().with_ids(index)
        image[..., 3] = 0
        return image

    def _kd_pixels(self, mask: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Pixels of the image, without the padding."""
        return real == 1


class MixedMaskDataset(MixedDataset):
    """Images with masks, then (optionally) images without; each sample gets ``labeled`` (bool)."""

    datasets: list[Any]

    def __init__(self, labeled: MaskDataset, unlabeled: UnlabeledDataset | None = None):
        """Put the two datasets side by side; indices below ``len(labeled)`` are labeled."""
        super().__init__(labeled, unlabeled)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample of the dataset that it lies in, with the flag ``labeled``."""
        return {**super(MixedDataset, self).__getitem__(index), "labeled": torch.tensor(index < self.n_labeled)}

    def device_views(self, args: Any, device: torch.device) -> Any:
        """Views of these images that are made on ``device``.

        Raises:
            NotOnDeviceError: The device cannot make them.
            UserError: An image cannot be read.
        """
        return MaskViews(self.datasets, device)

    @staticmethod
    def collate_fn(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch: tensors stacked, others as lists; only unlabeled images, the last ones, have a ``weak_img``."""
        columns = {key: [sample[key] for sample in samples if key in sample] for key in samples[-1]}
        return {k: torch.stack(v) if isinstance(v[0], torch.Tensor) else v for k, v in columns.items()}

    @property
    def labels(self) -> list[dict[str, Any]]:
        """The label dictionaries of the images with masks, as Ultralytics' plots and class weights read them."""
        return self.datasets[0].labels

    def load_mask(self, index: int, image_shape: tuple[int, int] | None = None) -> np.ndarray:
        """The mask of entry ``index`` of :attr:`labels`, (h, w) uint8."""
        return self.datasets[0].load_mask(index, image_shape)

    def close_mosaic(self, hyp: Any) -> None:
        """Nothing to stop: there are no mosaics."""
