"""Drawn steel textures with the seven defect classes of CR7-DET: images, exact boxes and exact masks.

The defects are larger and clearer than real ones: a small network from random weights should learn something in a few
hundred steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

NAMES = ("inclusions", "dents", "oil spots", "pits", "punching", "linear", "macular")

_MOST_DEFECTS = 3
_DEFECT_FREE = 0.04
"""Share of images without any defect."""

BASE = 150.0
"""Gray value of a sheet on average, to which those of the defects refer."""

Drawing = tuple[np.ndarray, np.ndarray]
"""Opacity (h, w) in [0, 1] and gray value (h, w) of a defect on a patch of its own."""


@dataclass(frozen=True)
class Scene:
    """Where and how defects are drawn.

    Attributes:
        sheet: Gray values (size, size) of a sheet of ``size`` px without defects.
        vary: Changes the drawing of a defect.
        paint: Gray values of a spot (h, w) of the sheet with a defect of the same shape on it.
        photograph: Changes the gray values of the whole image at the end.
    """

    sheet: Callable[[np.random.Generator, int], np.ndarray]
    vary: Callable[[np.random.Generator, Drawing], Drawing]
    paint: Callable[[np.random.Generator, np.ndarray, Drawing], np.ndarray]
    photograph: Callable[[np.random.Generator, np.ndarray], np.ndarray]


def draw_image(rng: np.random.Generator, size: int, scene: Scene | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One image and its boxes.

    Args:
        rng: Source of all randomness.
        size: [px] side.
        scene: How defects are drawn; None = :data:`CLEAR`.

    Returns:
        (size, size) uint8 gray image, and (n, 5) float32 rows [class id, x, y, w, h] (xywh center format, 0-1) of up
        to three defects that do not overlap.
    """
    return draw_defects(rng, size, NAMES, scene)[:2]


def draw_defects(
    rng: np.random.Generator, size: int, names: Sequence[str], scene: Scene | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image with defects of some classes, their boxes and their mask.

    Args:
        rng: Source of all randomness.
        size: [px] side.
        names: Classes to choose from, some of :data:`NAMES`, in id order.
        scene: As for :func:`draw_image`.

    Returns:
        Image and boxes as of :func:`draw_image`, a class id being an index into ``names``; and the mask (size, size)
        uint8, 0 = background, else 1 + class id. A pixel belongs to a defect where its opacity is above one half.
    """
    scene = scene or CLEAR
    canvas = scene.sheet(rng, size)
    mask = np.zeros((size, size), dtype=np.uint8)
    taken = np.zeros((size, size), dtype=bool)
    rows = []
    n = 0 if rng.random() < _DEFECT_FREE else int(rng.integers(1, _MOST_DEFECTS + 1))
    for _ in range(n):
        class_id = int(rng.integers(len(names)))
        opacity, gray = scene.vary(rng, _DRAW[NAMES.index(names[class_id])](rng, size))
        ys, xs = np.nonzero(opacity > 0.2)
        opacity, gray = (a[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] for a in (opacity, gray))
        h, w = opacity.shape
        for _ in range(20):
            y, x = int(rng.integers(0, size - h + 1)), int(rng.integers(0, size - w + 1))
            if not taken[y : y + h, x : x + w].any():
                break
        else:
            continue
        taken[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = True
        spot = canvas[y : y + h, x : x + w]
        spot[...] = scene.paint(rng, spot, (opacity, gray))
        mask[y : y + h, x : x + w][opacity > 0.5] = 1 + class_id
        rows.append([class_id, (x + w / 2) / size, (y + h / 2) / size, w / size, h / size])
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 5)
    return np.clip(scene.photograph(rng, canvas), 0, 255).astype(np.uint8), boxes, mask


def _steel(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rolled strip: grain elongated along the rolling direction (vertical) under soft, banded light."""
    noise = rng.normal(size=(size, size)).astype(np.float32)
    grain = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.7, sigmaY=6)
    fine = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), 0.6)
    position = np.linspace(0, 2 * np.pi, size, dtype=np.float32)
    light = np.sin(position * rng.uniform(0.3, 1.5) + rng.uniform(0, 6.3))[:, None] * rng.uniform(2, 10)
    sheet: np.ndarray = rng.uniform(125, 175) + light + grain / grain.std() * rng.uniform(3, 6) + fine / fine.std() * 2
    return sheet


def _grid(h: float, w: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (y, x) from -1 to 1 over a patch of h x w px, with a margin for soft edges."""
    y, x = np.mgrid[0 : int(h) + 4, 0 : int(w) + 4].astype(np.float32)
    return (y - y.mean()) / (h / 2), (x - x.mean()) / (w / 2)


def _soft(distance: np.ndarray, width: float = 0.15) -> np.ndarray:
    """Opacity 1 inside (distance < 1), 0 outside, with an edge of relative ``width``."""
    return np.clip((1 - distance) / width + 0.5, 0, 1)


def clouds(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, (h, w) float32, whose patches are about ``sigma`` [px] wide."""
    field = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), sigma)
    clouds: np.ndarray = (field - field.mean()) / (field.std() + 1e-6)
    return clouds


def _inclusion(rng: np.random.Generator, size: int) -> Drawing:
    """Dark, horizontal streak."""
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
    """Long, thin, slightly tilted scratch.

    The tilt is large enough for its box to be wider than a cell of the finest detection grid (8 px) at 128 px: a
    narrower box holds no cell center, and nothing would be learned from it.
    """
    y, x = _grid(size * rng.uniform(0.4, 0.6), size * rng.uniform(0.14, 0.18))
    lean = rng.uniform(0.6, 0.75) * rng.choice([-1, 1])
    opacity = _soft(np.abs(x - lean * y) / 0.22, 0.5) * (np.abs(y) <= 1)
    return opacity, np.full_like(opacity, rng.uniform(40, 60))


def _macular(rng: np.random.Generator, size: int) -> Drawing:
    """Mottled patch of light and dark flecks."""
    y, x = _grid(size * rng.uniform(0.26, 0.4), size * rng.uniform(0.26, 0.4))
    flecks = clouds(rng, x.shape, 1.6)
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


def _cover(rng: np.random.Generator, spot: np.ndarray, drawing: Drawing) -> np.ndarray:
    """The defect hides the sheet."""
    opacity, gray = drawing
    covered: np.ndarray = spot * (1 - opacity) + gray * opacity
    return covered


CLEAR = Scene(sheet=_steel, vary=lambda rng, drawing: drawing, paint=_cover, photograph=lambda rng, canvas: canvas)
"""Clear defects, each class much the same, on an even sheet."""
