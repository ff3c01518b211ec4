"""Images that are masks of other images, in a source of boxes: they are no photos and must not be trained on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.pixels import read_pixels
from dfssd.errors import UserError

MASK_FOLDER = re.compile(
    r"(.*[-_ ])?(masks?|segmentation([-_ ]?(class|object)(raw)?)?|ground[-_ ]?truths?|gts?|annotations?|labels?)"
    r"([-_ ](png|jpe?g|images?|bw|color))?",
    re.IGNORECASE,
)
"""Names of folders with masks; whether one holds masks is decided by the photos of the same names."""

_MASK_STEM = re.compile(r"(.+?)[-_. ](mask|gt|label|seg|segmentation|ground[-_]?truth)s?", re.IGNORECASE)
"""Names of masks beside their photos: ``part7_mask.png``."""

_FEW = 0.98
"""Share of the pixels of a mask that have one of its few values; the rest is JPEG noise at the edges."""

_VALUES = 8
"""Most values of a mask that is recognized by its pixels alone; values are counted in steps of 8 gray levels."""


def find_masks(images: Iterable[Path], root: Path) -> dict[Path, Path]:
    """The images that are masks of others.

    A mask is called like its photo, with another folder or an ending such as ``_mask``. It lies in a folder called like
    one for masks, or its pixels have a few values only while those of the photo have many.

    Args:
        images: All images of the source.
        root: Its folder.

    Returns:
        Mask -> photo.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem.casefold()].append(image)
    masks: dict[Path, Path] = {}
    for stem, same in by_stem.items():
        if (ending := _MASK_STEM.fullmatch(stem)) and (owners := by_stem.get(ending[1])):
            masks.update((image, owners[0]) for image in same if has_few_values(image))
        elif len(same) > 1:
            masks.update(_of_one_name(same, root))
    return masks


def _of_one_name(images: Sequence[Path], root: Path) -> dict[Path, Path]:
    """Those of several images of one name that are masks of another one of them."""
    photos = [image for image in images if not _in_mask_folder(image, root)]
    if not photos:
        return {}
    masks = [image for image in images if image not in photos]
    if len({photo.parent for photo in photos}) > 1:
        drawn = [image for image in photos if has_few_values(image)]
        if len(drawn) < len(photos):
            masks += drawn
            photos = [image for image in photos if image not in drawn]
    return dict.fromkeys(masks, photos[0])


def _in_mask_folder(image: Path, root: Path) -> bool:
    return any(MASK_FOLDER.fullmatch(folder) for folder in image.parts[len(root.parts) : -1])


def has_few_values(image: Path) -> bool:
    """Whether nearly all pixels of an image have one of a few gray values, as those of a mask do."""
    try:
        pixels = read_pixels(image)
    except UserError:
        return False
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    counts = np.sort(np.bincount(gray.ravel() // 8, minlength=32))[::-1]
    return bool(counts[:_VALUES].sum() >= _FEW * counts.sum() and np.count_nonzero(counts > 0.001 * counts.sum()) <= 8)
