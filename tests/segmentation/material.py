"""Small data sets with masks, written to a temporary folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
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


def defects(seed: int, side: int = 64, nc: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """An image (side, side, 3) on which each defect class has a gray of its own, and its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    for c in range(1, nc):
        y, x = rng.integers(0, side // 2, 2)
        mask[y : y + side // 3, x : x + side // 4] = c
    image = np.repeat((40 + 60 * mask)[..., None], 3, 2) + rng.integers(0, 10, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def mask_data(root: Path, *, side: int = 64, train: int = 4, val: int = 2, unlabeled: int = 3) -> Path:
    """A semantic data YAML with lists, as ``write_mask_split`` writes them; ``unlabeled.txt`` lies beside it."""
    lists = {}
    for first, (part, n) in enumerate((("train", train), ("val", val), ("unlabeled", unlabeled))):
        files = []
        for i in range(n):
            image, mask = defects(100 * first + i, side)
            files.append(root / "images" / part / f"{i}.png")
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(files[-1])
            if part != "unlabeled":
                write_mask(root / "masks" / part / f"{i}.png", mask)
        lists[part] = root / f"{part}.txt"
        lists[part].write_text("\n".join(map(str, files)) + "\n")
    content = {"path": str(root), "train": "train.txt", "val": "val.txt", "test": "val.txt", "masks_dir": "masks"}
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "names": dict(enumerate(NEU_NAMES))}))
    return root / "data.yaml"
