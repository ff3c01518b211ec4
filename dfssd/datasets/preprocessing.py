"""Preprocessing of pixels, done once when a data set is imported; everything is off by default.

Steps in this order: crop, resize, normalize (contrast stretch), clahe, pad. Boxes are transformed as well. Random
augmentation happens during training, by keys of Ultralytics (mosaic, hsv_v, fliplr, ...).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dfssd.errors import UserError

PAD_GRAY = 114
"""Gray value of padding, that of Ultralytics' letterbox."""

_MIN_VISIBLE = 0.1
"""Minimum visible share of a cropped box; a smaller remainder is dropped."""


@dataclass(frozen=True)
class Preprocess:
    """Which changes to make.

    Attributes:
        resize: Longer side of the stored image [px], or None.
        normalize: Stretch the gray values of each image to 0-255.
        clahe: Contrast-limited adaptive histogram equalization (clip limit 2, 8x8 tiles) of the lightness.
        crop: (x1, y1, x2, y2) [px] of the region to keep, or None.
        pad: Pad to a square, the image in the middle.
    """

    resize: int | None
    normalize: bool
    clahe: bool
    crop: tuple[int, int, int, int] | list[int] | None
    pad: bool

    @property
    def changes_pixels(self) -> bool:
        """Whether any step is on."""
        return self._moves_boxes or self.normalize or self.clahe

    @property
    def _moves_boxes(self) -> bool:
        return self.resize is not None or self.crop is not None or self.pad

    def problem(self, size: tuple[int, int]) -> str | None:
        """Why an image of (width, height) [px] cannot be prepared; None if it can."""
        if self.crop is None:
            return None
        (x1, y1, x2, y2), (width, height) = self.crop, size
        if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height:
            return None
        return f"preprocess.crop={list(self.crop)} does not lie inside an image of {width}x{height} px"

    def apply(self, image: np.ndarray, boxes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Prepare one image.

        Args:
            image: (h, w, 3) uint8.
            boxes: (n, 5) rows [class id, x, y, w, h], xywh center format, 0-1; None = unlabeled.

        Returns:
            The new image, and the new boxes of which at least a tenth is left (None stays None).

        Raises:
            UserError: ``crop`` does not lie inside the image.
        """
        height, width = image.shape[:2]
        if problem := self.problem((width, height)):
            raise UserError(f"{problem}; choose x1, y1, x2, y2 inside all images")
        steps = self._steps(width, height)
        if not self._moves_boxes:
            return steps(image=image)["image"], boxes
        rows = np.zeros((0, 5), dtype=np.float32) if boxes is None else boxes
        done = steps(image=image, bboxes=rows[:, 1:], class_ids=rows[:, 0])
        if boxes is None:
            return done["image"], None
        moved = np.asarray(done["bboxes"], dtype=np.float32).reshape(-1, 4)
        ids = np.asarray(done["class_ids"], dtype=np.float32).reshape(-1, 1)
        return done["image"], np.hstack([ids, moved])

    def back(self, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Where boxes of a prepared image lie in the original.

        Args:
            boxes: (n, 4) or more columns, of which the first four are x1, y1, x2, y2 [px] in the prepared image.
            size: (width, height) of the original [px].

        Returns:
            A copy with these four in the original, and inside of it.
        """
        left, top, right, bottom = self.crop or (0, 0, *size)
        sides = np.array([right - left, bottom - top], np.float64)
        scaled = np.round(sides * (self.resize / sides.max())) if self.resize else sides
        square = max(self.resize or 0, *scaled) if self.pad else scaled
        before = np.floor((square - scaled) / 2)
        moved = np.array(boxes)
        for first, corner in ((0, left), (1, top)):
            inside = (boxes[:, first:4:2] - before[first]) * (sides[first] / scaled[first])
            moved[:, first:4:2] = corner + inside.clip(0, sides[first])
        return moved

    def _steps(self, width: int, height: int) -> Any:
        """The pipeline for an image of that size; one per call, since threads must not share its state."""
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would check for updates online on import
        import albumentations as A  # takes a second to import, and most runs change no pixels

        steps: list[Any] = []
        if self.crop is not None:
            x1, y1, x2, y2 = self.crop
            width, height = x2 - x1, y2 - y1
            steps.append(A.Crop(x1, y1, x2, y2))
        if self.resize is not None:
            steps.append(A.LongestMaxSize(max_size=self.resize, interpolation=cv2.INTER_AREA))
        if self.normalize:
            steps.append(A.Lambda(image=_stretch, name="normalize", p=1))
        if self.clahe:
            steps.append(A.CLAHE(clip_limit=(2, 2), tile_grid_size=(8, 8), p=1))
        if self.pad:
            side = self.resize or max(width, height)
            steps.append(A.PadIfNeeded(min_height=side, min_width=side, border_mode=cv2.BORDER_CONSTANT, fill=PAD_GRAY))
        if not self._moves_boxes:
            return A.Compose(steps)
        boxes = A.BboxParams(format="yolo", label_fields=["class_ids"], min_visibility=_MIN_VISIBLE, clip=True)
        return A.Compose(steps, bbox_params=boxes)


def _stretch(image: np.ndarray, **_: Any) -> np.ndarray:
    """``image`` with its darkest value at 0 and its brightest at 255; a flat image stays as it is."""
    low, high = int(image.min()), int(image.max())
    if low == high:
        return image
    return np.round((image.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
