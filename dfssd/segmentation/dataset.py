"""Images with masks, and images without, as Ultralytics datasets with our own views.

It differs from Ultralytics' semantic dataset in training:

* the long side is scaled to ``imgsz``, as in validation and prediction (Ultralytics scales the short side in training
  alone: a strip of 1600x256 px would be six times as large in training as in tests), the rest of the square is ignored;
* the views are those of :mod:`dfssd.segmentation.views`, instead of mosaics and the like;
* distance maps for the boundary loss are computed from the augmented mask, on request;
* images without masks take part: their classes are unknown, but all their pixels serve distillation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ultralytics.data.dataset import SemanticDataset, YOLODataset

from dfssd.datasets.records import IGNORE
from dfssd.loading.loader import NotOnDeviceError
from dfssd.segmentation.boundary import distance_maps
from dfssd.segmentation.views import Views, pad_to_square
from dfssd.trainers.mixed_data import MixedDataset


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
        return self._view

    def _view(self, label: dict[str, Any]) -> dict[str, Any]:
        image, mask, real = pad_to_square(label["img"], label["semantic_mask"], self.imgsz)
        image, (mask, real) = self.views(np.ascontiguousarray(image[..., ::-1]), [mask, real])
        sample = {
            "im_file": label["im_file"],
            "ori_shape": label["ori_shape"],
            "img": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "semantic_mask": torch.from_numpy(mask.astype(np.int32)),
            "kd_pixels": torch.from_numpy(self._kd_pixels(mask, real)),
        }
        if self.data.get("boundary"):
            sample["boundary_maps"] = torch.from_numpy(distance_maps(mask, len(self.data["names"])))
        return sample

    def _kd_pixels(self, mask: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Pixels with a known class: where a mask is marked as ignored, nothing is to be learned."""
        return mask != IGNORE


class UnlabeledDataset(MaskDataset):
    """Images without masks, for training: every pixel has the id 255, and all serve distillation."""

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
        """Not there for masks."""
        raise NotOnDeviceError("views with masks are made by Ultralytics' processes only")

    @staticmethod
    def collate_fn(samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch: tensors stacked, ``im_file`` and ``ori_shape`` as lists."""
        columns = {key: [sample[key] for sample in samples] for key in samples[0]}
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
