"""An embedded data set: drawn steel textures with the seven defect classes of CR7-DET and exact boxes.

It exists so that the whole program can be tried within minutes and without a download. The defects are larger and
clearer than real ones: a small network from random weights should learn something in a few hundred steps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.label_files import format_labels
from dfssd.errors import UserError
from dfssd.files import write_yaml

NAMES = ("inclusions", "dents", "oil spots", "pits", "punching", "linear", "macular")
COUNTS = {"train": 96, "unlabeled": 192, "val": 48, "test": 48}
"""Images per split."""

SIZE = 160
"""[px] side of an image."""

_VERSION = 1
"""Raised when the drawings or classes of a demo change, so that an older folder is not taken for the current one."""

_MOST_DEFECTS = 3
_DEFECT_FREE = 0.04
"""Share of images without any defect."""

Drawing = tuple[np.ndarray, np.ndarray]
"""Opacity (h, w) in [0, 1] and grey value (h, w) of a defect on a patch of its own."""


def make_demo(data_dir: Path, counts: dict[str, int] | None = None, seed: int = 0, size: int = SIZE) -> Path:
    """Draw the demo data set, or find it from an earlier run.

    Args:
        data_dir: Parent folder of the data set.
        counts: Images per split (train, val, test, unlabeled); None = :data:`COUNTS`.
        seed: Seed of all drawings; each split has a stream of its own.
        size: [px] side of the images.

    Returns:
        The data set YAML ``demo.yaml``. Unlabelled images have label files too: they serve to judge pseudo-labels.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """

    def sample(rng: np.random.Generator, split: str) -> tuple[np.ndarray, bytes]:
        image, boxes = draw_image(rng, size)
        return image, format_labels(boxes).encode()

    counts = counts or COUNTS
    target = demo_folder(data_dir, "demo", counts, seed, size)
    return write_demo(target, counts, seed, sample, "labels/{}.txt", {"names": dict(enumerate(NAMES))})


def demo_folder(data_dir: Path, name: str, counts: dict[str, int], seed: int, size: int) -> Path:
    """Folder of the demo ``name``, which tells everything that its content depends on."""
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
        seed: Each split has a stream of its own from it.
        sample: The next image (h, w) uint8 of a stream for a split, and the content of its label file, None = no file.
        label_path: Of a label file in ``target``, ``{}`` stands for ``<split>/<stem>``.
        entries: What ``demo.yaml`` says besides the splits.

    Returns:
        The data set YAML ``demo.yaml``.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """
    description = target / "demo.yaml"
    if description.exists():
        return description
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run: in a container the same process id comes again
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
        if description.exists():  # another run was faster; it may train from there already
            return description
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    except OSError as e:
        raise UserError(f"cannot write {target}: {e.strerror}; free some space or choose another data_dir=") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return description


def draw_image(rng: np.random.Generator, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """One image and its boxes.

    Args:
        rng: Source of all randomness.
        size: [px] side.

    Returns:
        (size, size) uint8 grey image, and (n, 5) float32 rows [class id, x, y, w, h] (xywh centre format, 0-1) of up
        to three defects that do not overlap.
    """
    return draw_defects(rng, size, NAMES)[:2]


def draw_defects(
    rng: np.random.Generator, size: int, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image with defects of some classes, their boxes and their mask.

    Args:
        rng: Source of all randomness.
        size: [px] side.
        names: Classes to choose from, some of :data:`NAMES`, in id order.

    Returns:
        Image and boxes as of :func:`draw_image`, a class id being a place in ``names``; and the mask (size, size)
        uint8, 0 = background, else 1 + class id. A pixel belongs to a defect where the opacity is above a half: there
        it shows more of the defect than of the steel.
    """
    canvas = _steel(rng, size)
    mask = np.zeros((size, size), dtype=np.uint8)
    taken = np.zeros((size, size), dtype=bool)
    rows = []
    n = 0 if rng.random() < _DEFECT_FREE else int(rng.integers(1, _MOST_DEFECTS + 1))
    for _ in range(n):
        class_id = int(rng.integers(len(names)))
        opacity, grey = _DRAW[NAMES.index(names[class_id])](rng, size)
        ys, xs = np.nonzero(opacity > 0.2)
        opacity, grey = (a[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] for a in (opacity, grey))
        h, w = opacity.shape
        for _ in range(20):
            y, x = int(rng.integers(0, size - h + 1)), int(rng.integers(0, size - w + 1))
            if not taken[y : y + h, x : x + w].any():
                break
        else:
            continue
        taken[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = True
        spot = canvas[y : y + h, x : x + w]
        spot[...] = spot * (1 - opacity) + grey * opacity
        mask[y : y + h, x : x + w][opacity > 0.5] = 1 + class_id
        rows.append([class_id, (x + w / 2) / size, (y + h / 2) / size, w / size, h / size])
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 5)
    return np.clip(canvas, 0, 255).astype(np.uint8), boxes, mask


def _steel(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rolled strip: grain drawn out along the rolling direction (vertical) under soft, banded light."""
    noise = rng.normal(size=(size, size)).astype(np.float32)
    grain = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.7, sigmaY=6)
    fine = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), 0.6)
    position = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    light = np.sin(position * rng.uniform(0.3, 1.5) + rng.uniform(0, 6.3))[:, None] * rng.uniform(2, 10)
    return rng.uniform(125, 175) + light + grain / grain.std() * rng.uniform(3, 6) + fine / fine.std() * 2


def _grid(h: float, w: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (y, x) from -1 to 1 over a patch of h x w px, with a margin for soft edges."""
    y, x = np.mgrid[0 : int(h) + 4, 0 : int(w) + 4].astype(np.float32)
    return (y - y.mean()) / (h / 2), (x - x.mean()) / (w / 2)


def _soft(distance: np.ndarray, width: float = 0.15) -> np.ndarray:
    """Opacity 1 inside (distance < 1), 0 outside, with an edge of relative ``width``."""
    return np.clip((1 - distance) / width + 0.5, 0, 1)


def _clouds(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    field = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), sigma)
    return (field - field.mean()) / (field.std() + 1e-6)


def _inclusion(rng: np.random.Generator, size: int) -> Drawing:
    """Dark, lying streak."""
    y, x = _grid(size * rng.uniform(0.07, 0.1), size * rng.uniform(0.2, 0.32))
    opacity = _soft(np.hypot(x, y + 0.3 * np.sin(3 * x)), 0.3)
    return opacity, np.full_like(opacity, rng.uniform(35, 60))


def _dent(rng: np.random.Generator, size: int) -> Drawing:
    """Round hollow: bright on one flank, dark on the other."""
    side = size * rng.uniform(0.16, 0.28)
    y, x = _grid(side, side)
    slope = (x + y) * 0.7
    return _soft(np.hypot(x, y), 0.3) * 0.9, 150 + 95 * slope


def _oil_spot(rng: np.random.Generator, size: int) -> Drawing:
    """Large smooth stain with a wavy outline and a darker rim."""
    y, x = _grid(size * rng.uniform(0.3, 0.45), size * rng.uniform(0.3, 0.45))
    angle = np.arctan2(y, x)
    outline = 0.85 + 0.15 * np.sin(angle * int(rng.integers(2, 5)) + rng.uniform(0, 6.3))
    distance = np.hypot(x, y) / outline
    opacity = _soft(distance, 0.08) * 0.75
    return opacity, np.where(distance > 0.85, 60.0, 95.0).astype(np.float32)


def _pits(rng: np.random.Generator, size: int) -> Drawing:
    """Cluster of small black holes."""
    side = size * rng.uniform(0.16, 0.26)
    y, x = _grid(side, side)
    opacity = np.zeros_like(x)
    for _ in range(int(rng.integers(7, 12))):
        cy, cx = rng.uniform(-0.8, 0.8, 2)
        opacity = np.maximum(opacity, _soft(np.hypot(x - cx, y - cy) / 0.17, 0.4))
    return opacity, np.full_like(opacity, 15)


def _punching(rng: np.random.Generator, size: int) -> Drawing:
    """Punched hole: black, with a bright burr."""
    height = size * rng.uniform(0.14, 0.2)
    y, x = _grid(height, height * rng.uniform(1.5, 1.9))
    distance = np.hypot(x, y)
    return _soft(distance, 0.1), np.where(distance > 0.82, 240.0, 5.0).astype(np.float32)


def _linear(rng: np.random.Generator, size: int) -> Drawing:
    """Long, thin, slightly leaning scratch.

    It leans enough for its box to be wider than a cell of the finest detection grid (8 px) at 128 px: a narrower box
    holds no cell centre, and nothing would be learnt from it.
    """
    y, x = _grid(size * rng.uniform(0.4, 0.6), size * rng.uniform(0.14, 0.18))
    lean = rng.uniform(0.6, 0.75) * rng.choice([-1, 1])
    opacity = _soft(np.abs(x - lean * y) / 0.22, 0.5) * (np.abs(y) <= 1)
    return opacity, np.full_like(opacity, rng.uniform(40, 60))


def _macular(rng: np.random.Generator, size: int) -> Drawing:
    """Mottled patch of light and dark flecks."""
    y, x = _grid(size * rng.uniform(0.26, 0.4), size * rng.uniform(0.26, 0.4))
    flecks = _clouds(rng, x.shape, 1.6)
    opacity = _soft(np.hypot(x, y) + 0.1 * flecks, 0.2) * 0.85
    return opacity, 150 + 60 * np.sign(flecks)


_DRAW: tuple[Callable[[np.random.Generator, int], Drawing], ...] = (
    _inclusion,
    _dent,
    _oil_spot,
    _pits,
    _punching,
    _linear,
    _macular,
)
