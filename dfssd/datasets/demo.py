"""The embedded data sets, drawn by :mod:`dfssd.datasets.drawings`: one with boxes, one with masks.

They allow trying the whole program within minutes and without a download.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.drawings import NAMES, draw_defects, draw_image
from dfssd.datasets.label_files import format_labels
from dfssd.datasets.plant import PLANT
from dfssd.errors import UserError
from dfssd.files import write_yaml

COUNTS = {"train": 480, "unlabeled": 0, "val": 100, "test": 320}
"""Images per split of the data set with boxes."""

SIZE = 128
"""[px] side of its images."""

MASK_NAMES = ("background", "punching", "oil spots", "linear")
"""Classes of the data set with masks.

As in NEU-Seg, one is a blob, one a patch and one a scratch. They were chosen to stay distinct under every augmentation
of pose and color: small and black with a bright rim, large and gray, thin and dark. A small network from random weights
should learn something within a minute or two on a CPU.
"""

MASK_COUNTS = {"train": 96, "unlabeled": 64, "val": 32, "test": 48}
"""Images per split of the data set with masks."""

MASK_SIZE = 96
"""[px] side of its images."""

_VERSION = 2
"""Raised when the drawings or classes of a demo change, so that an older folder is not mistaken for the current one."""


def make_demo(data_dir: Path, counts: dict[str, int] | None = None, seed: int = 0, size: int = SIZE) -> Path:
    """Draw the demo data set with boxes, or find it from an earlier run.

    Args:
        data_dir: Parent folder of the data set.
        counts: Images per split (train, val, test, unlabeled); None = :data:`COUNTS`.
        seed: Seed of all drawings; each split has a stream of its own.
        size: [px] side of the images.

    Returns:
        The data set YAML ``demo.yaml``. Unlabeled images have label files too, to evaluate pseudo-labels.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """

    def sample(rng: np.random.Generator, split: str) -> tuple[np.ndarray, bytes]:
        image, boxes = draw_image(rng, size, PLANT)
        return image, format_labels(boxes).encode()

    counts = counts or COUNTS
    target = demo_folder(data_dir, "demo", counts, seed, size)
    return write_demo(target, counts, seed, sample, "labels/{}.txt", {"names": dict(enumerate(NAMES))})


def make_mask_demo(data_dir: Path, counts: dict[str, int] | None = None, seed: int = 0, size: int = MASK_SIZE) -> Path:
    """Draw the demo data set with masks, or find it; as :func:`make_demo`, except for :data:`MASK_COUNTS`.

    Returns:
        The semantic data set YAML ``demo.yaml``; masks are 8-bit PNG, unlabeled images have none.
    """

    def sample(rng: np.random.Generator, split: str) -> tuple[np.ndarray, bytes | None]:
        image, _, mask = draw_defects(rng, size, MASK_NAMES[1:])
        return image, None if split == "unlabeled" else cv2.imencode(".png", mask)[1].tobytes()

    counts = counts or MASK_COUNTS
    target = demo_folder(data_dir, "demo-masks", counts, seed, size)
    entries = {"masks_dir": "masks", "names": dict(enumerate(MASK_NAMES))}
    return write_demo(target, counts, seed, sample, "masks/{}.png", entries)


def demo_folder(data_dir: Path, name: str, counts: dict[str, int], seed: int, size: int) -> Path:
    """Folder of the demo ``name``; its name contains everything that the content depends on."""
    sizes = "-".join(str(counts.get(split, 0)) for split in COUNTS)
    return data_dir / f"{name}-v{_VERSION}-{sizes}-{size}px-seed{seed}"


def write_demo(
    target: Path,
    counts: dict[str, int],
    seed: int,
    sample: Callable[[np.random.Generator, str], tuple[np.ndarray, bytes | None]],
    label_path: str,
    entries: Mapping[str, object],
) -> Path:
    """Write a drawn data set, whole or not at all, unless it is there already.

    Args:
        target: Folder of the data set.
        counts: Images per split.
        seed: Seed of all drawings; each split has a stream of its own.
        sample: The next image (h, w) uint8 of a stream for a split, and the content of its label file, None = no file.
        label_path: Path of a label file in ``target``; ``{}`` stands for ``<split>/<stem>``.
        entries: Entries of ``demo.yaml`` besides the splits.

    Returns:
        The data set YAML ``demo.yaml``.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """
    description = target / "demo.yaml"
    if description.exists():
        return description
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run: in a container process ids repeat
    try:
        for number, split in enumerate(COUNTS):
            rng = np.random.default_rng((seed, number))
            for i in range(counts.get(split, 0)):
                image, label = sample(rng, split)
                name = f"{split}/{split}_{i:04d}"
                jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
                for path, content in (f"images/{name}.jpg", jpeg), (label_path.format(name), label):
                    if content is not None:
                        (partial / path).parent.mkdir(parents=True, exist_ok=True)
                        (partial / path).write_bytes(content)
        splits = {split: f"images/{split}" for split in COUNTS if counts.get(split, 0)}
        write_yaml(partial / "demo.yaml", {**splits, **entries})
        if description.exists():  # another run was faster and may already be training on it
            return description
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    except OSError as e:
        raise UserError(f"cannot write {target}: {e.strerror}; free some space or choose another data_dir=") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return description
