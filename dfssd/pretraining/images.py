"""Lists of images that are seen without their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils.patches import imread

from dfssd.config import DENSE, REGIONS
from dfssd.errors import UserError
from dfssd.files import write_yaml
from dfssd.log import LOGGER
from dfssd.pretraining.regions import salient_regions
from dfssd.trainers.mixed_data import image_shape
from dfssd.wording import counted


def write_images(file: Path, lists: Sequence[Path]) -> None:
    """Write the data set description of lists of images that are seen without labels.

    There is one class, whose name no other data set has: nobody takes the network for one that knows the classes. As
    validation images, which Ultralytics demands, it names the same ones; they are never read as such.
    """
    paths = [str(path) for path in lists]
    write_yaml(file, {"train": paths, "val": paths, "names": {0: "(images alone)"}})


class PlainImages(YOLODataset):
    """Images whose label files are not read; ``data["regions"]``: with boxes around what stands out in them."""

    def get_labels(self) -> list[dict[str, Any]]:
        """A dictionary for each image."""
        nothing = np.zeros((0, 4), np.float32)
        boxes = self._regions() if self.data["regions"] else [nothing] * len(self.im_files)
        return [
            {
                "im_file": file,
                "shape": image_shape(file),
                "cls": np.zeros((len(found), 1), np.float32),
                "bboxes": found,
                "segments": [],
                "keypoints": None,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for file, found in zip(self.im_files, boxes, strict=True)
        ]

    def _regions(self) -> list[np.ndarray]:
        """The regions of each image; OpenCV releases Python's lock, so several threads search."""

        def search(file: str) -> np.ndarray:
            pixels = imread(file)
            if pixels is None:
                raise UserError(f"cannot read {file}: restore the file, or prepare the data anew with skip_bad=true")
            return salient_regions(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(search, self.im_files))
        count = sum(map(len, found))
        if not count:
            raise UserError(
                f"pretrain={REGIONS}: nothing stands out in any of {counted(len(found), 'training image')}; "
                f"use pretrain={DENSE}"
            )
        LOGGER.info(
            f"pretrain: {counted(count, 'region stands', 'regions stand')} out in {counted(len(found), 'image')}"
        )
        return found
