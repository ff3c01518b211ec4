"""The embedded data set with masks: drawn steel with three of the defect classes of the detection demo.

As in NEU-Seg, one class is a blob, one a patch and one a scratch. They were chosen to differ in every pose and colour
that training shows: small and black with a bright rim, large and grey, thin and dark. A small network from random
weights should learn something within a minute or two on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.demo import demo_folder, draw_defects, write_demo

NAMES = ("background", "punching", "oil spots", "linear")
COUNTS = {"train": 96, "unlabeled": 64, "val": 32, "test": 48}
"""Images per split."""

SIZE = 96
"""[px] side of an image."""


def make_mask_demo(data_dir: Path, counts: dict[str, int] | None = None, seed: int = 0, size: int = SIZE) -> Path:
    """Draw the demo data set with masks, or find it from an earlier run.

    Args:
        data_dir: Parent folder of the data set.
        counts: Images per split (train, val, test, unlabeled); None = :data:`COUNTS`.
        seed: Seed of all drawings; each split has a stream of its own.
        size: [px] side of the images.

    Returns:
        The semantic data set YAML ``demo.yaml``; masks are 8-bit PNG, unlabelled images have none.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """

    def sample(rng: np.random.Generator, split: str) -> tuple[np.ndarray, bytes | None]:
        image, _, mask = draw_defects(rng, size, NAMES[1:])
        return image, None if split == "unlabeled" else cv2.imencode(".png", mask)[1].tobytes()

    counts = counts or COUNTS
    target = demo_folder(data_dir, "demo-masks", counts, seed, size)
    entries = {"masks_dir": "masks", "names": dict(enumerate(NAMES))}
    return write_demo(target, counts, seed, sample, "masks/{}.png", entries)
