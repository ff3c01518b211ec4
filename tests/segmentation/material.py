"""Small data sets with masks, written to a temporary folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.datasets.material import write_picture

NEU_NAMES = ("background", "inclusion", "patches", "scratches")


def ids(seed: int, nc: int = 4, width: int = 64, height: int = 48) -> np.ndarray:
    """A mask with two rectangles of defects and one ignored pixel."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[4:20, 4 : 20 + seed % 5] = 1 + seed % (nc - 1)
    mask[30:44, 10:50] = rng.integers(1, nc)
    mask[0, 0] = 255
    return mask


def write_mask(path: Path, mask: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    (image.convert(mode) if mode else image).save(path)
    return path


def neu_seg(root: Path, train: int = 4, test: int = 2) -> Path:
    """``images/{training,test}/*.jpg`` and ``annotations/{training,test}/*.png``; names repeat in the two parts."""
    for part, n in (("training", train), ("test", test)):
        for i in range(1, n + 1):
            seed = i + (100 if part == "test" else 0)
            write_picture(root / "images" / part / f"{i:06d}.jpg", seed)
            write_mask(root / "annotations" / part / f"{i:06d}.png", ids(seed))
    (root / "README.md").write_text("# NEU-Seg\n")
    return root
