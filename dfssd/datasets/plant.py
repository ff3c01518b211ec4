"""Drawings as a plant's camera shows steel: faint defects that vary widely, on sheets that vary as widely.

The shapes are those of :mod:`dfssd.datasets.drawings`. Here each one is resized, turned, bent, and often inverted, and
stands out by little more than the texture; sheets differ in shade, light, grain, and rolling direction, and carry marks
that resemble defects and are none: straight roll marks (not tilted scratches), single specks (not clusters of pits),
shades without an outline (not stains), bands across the whole sheet (not streaks). A few labeled images therefore do
not show all that a class can be. docs/data.md says how difficult the images are.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from dfssd.datasets.drawings import BASE, Drawing, Scene, clouds

_STRENGTH = (0.4, 1.0)
"""Contrast of a defect, as a share of that of :mod:`dfssd.datasets.drawings`."""

_INVERTED = 0.3
"""Share of defects that are bright where others are dark: the light comes from the other side."""

_TURN = 25.0
"""[degrees] largest turn of a defect in its plane."""

_TILT = 12.0
"""[degrees] largest angle between the rolling direction and the vertical."""


def sheet(rng: np.random.Generator, size: int) -> np.ndarray:
    """A rolled strip (size, size) with everything on it that is no defect."""
    side = math.ceil(1.4 * size)
    grain = cv2.GaussianBlur(
        _noise(rng, side), (0, 0), sigmaX=rng.uniform(0.5, 1.3), sigmaY=rng.uniform(2, 14) * size / 160
    )
    strip = grain / grain.std() * rng.uniform(3, 8)
    _add_roll_marks(rng, strip, size)
    turn: np.ndarray = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-_TILT, _TILT), 1)
    turn[:, 2] -= (side - size) / 2
    canvas: np.ndarray = cv2.warpAffine(
        strip, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    canvas += rng.uniform(0, 25) * (math.cos(angle) * x + math.sin(angle) * y) - rng.uniform(0, 20) * (x**2 + y**2)
    canvas += rng.uniform(0, 8) * clouds(rng, (size, size), rng.uniform(0.05, 0.15) * size)
    if rng.random() < 0.3:
        canvas += rng.uniform(2, 7) * np.sin(y * rng.uniform(8, 40) + rng.uniform(0, 6.3))
    _add_shades(rng, canvas, x, y)
    _add_specks(rng, canvas, size)
    return canvas + rng.uniform(100, 175)


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    return rng.normal(size=(side, side)).astype(np.float32)


def _add_roll_marks(rng: np.random.Generator, strip: np.ndarray, size: int) -> None:
    """Lines along the rolling direction, some over a part of the strip only."""
    side = len(strip)
    for _ in range(rng.poisson(3)):
        x, width = rng.uniform(0, side), rng.uniform(0.5, 1.5) * size / 160
        profile = np.exp(-(((np.arange(side) - x) / width) ** 2) / 2)
        ends = np.sort(rng.uniform(0, side, 2)) if rng.random() < 0.5 else (0, side)
        strip[int(ends[0]) : int(ends[1])] += rng.choice([-1, 1]) * rng.uniform(6, 35) * profile.astype(np.float32)


def _add_shades(rng: np.random.Generator, canvas: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Brighter and darker places without an outline."""
    for _ in range(rng.poisson(1.5)):
        cx, cy = rng.uniform(-1, 1, 2)
        wx, wy = rng.uniform(0.12, 0.4, 2)
        canvas += rng.choice([-1, 1]) * rng.uniform(8, 30) * np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)


def _add_specks(rng: np.random.Generator, canvas: np.ndarray, size: int) -> None:
    """Single grains of dust."""
    for _ in range(rng.poisson(5)):
        radius = rng.uniform(0.8, 2.5) * size / 160
        cx, cy = rng.uniform(0, size, 2)
        low_x, low_y = max(int(cx - 8), 0), max(int(cy - 8), 0)
        spot = canvas[low_y : int(cy + 9), low_x : int(cx + 9)]
        y, x = np.mgrid[0 : spot.shape[0], 0 : spot.shape[1]]
        distance = ((x + low_x - cx) ** 2 + (y + low_y - cy) ** 2) / radius**2
        spot += rng.choice([-1, -1, 1]) * rng.uniform(15, 80) * np.exp(-distance / 2)


def vary(rng: np.random.Generator, drawing: Drawing) -> Drawing:
    """The drawing of a defect, resized in both directions, turned, and bent."""
    given, gray = (np.asarray(part, dtype=np.float32) for part in drawing)
    h, w = given.shape
    scale = math.exp(rng.uniform(-0.3, 0.3))
    stretch = math.exp(rng.uniform(-0.25, 0.25))
    fx, fy = scale * stretch, scale / stretch
    angle = math.radians(rng.uniform(-_TURN, _TURN))
    cos, sin = math.cos(angle), math.sin(angle)
    side = math.ceil(math.hypot(h * fy, w * fx) * 1.2) + 4
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) - (side - 1) / 2
    bend = rng.uniform(0, 0.06) * max(h, w)
    dx, dy = (bend * clouds(rng, (side, side), side / 8) for _ in range(2))
    map_x = (cos * x + sin * y) / fx + dx + (w - 1) / 2
    map_y = (-sin * x + cos * y) / fy + dy + (h - 1) / 2
    maps = map_x.astype(np.float32), map_y.astype(np.float32)
    opacity = cv2.remap(given, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return opacity, cv2.remap(gray, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def paint(rng: np.random.Generator, spot: np.ndarray, drawing: Drawing) -> np.ndarray:
    """The sheet at ``spot`` (h, w) with a faint defect, through which its texture shows."""
    opacity, gray = drawing
    sign = -1 if rng.random() < _INVERTED else 1
    faint: np.ndarray = spot + sign * rng.uniform(*_STRENGTH) * opacity * (gray - BASE)
    return faint


def photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """What the camera makes of it: contrast, blur, and noise."""
    size = len(canvas)
    blurred = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), rng.uniform(0.3, 1.2) * size / 160)
    noisy: np.ndarray = blurred + rng.uniform(1.5, 6) * _noise(rng, size)
    return noisy


PLANT = Scene(sheet=sheet, vary=vary, paint=paint, photograph=photograph)
