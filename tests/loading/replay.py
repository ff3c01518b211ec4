"""Ultralytics' own transforms, made to draw given random numbers, so that its views can be held against ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data import augment
from ultralytics.data.dataset import YOLODataset

from dfssd.loading.geometry import Draws, GeometrySettings

SIDE = 96
SIZES = ((96, 96), (200, 120), (60, 40), (33, 150), (300, 280), (96, 10), (128, 128))
"""Width and height [px] of the images in the files."""

PLAIN = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "augmentations": [], "mosaic": 0.5, "mixup": 0.5}
"""Arguments without photometric changes; a probability of a half follows the script."""


class Script:
    """Stands for ``random`` and for ``numpy.random.beta``: gives the numbers of a list, and checks their ranges."""

    def __init__(self, values: list[Any]):
        self.values = values

    def _next(self) -> Any:
        return self.values.pop(0)

    def gains(self, low: float, high: float, size: int) -> np.ndarray:
        """As ``numpy.random.uniform``, for the three gains of a color."""
        value = self._next()
        assert (low, high, size) == (-1, 1, 3) and np.shape(value) == (3,)
        return value

    def uniform(self, low: float, high: float) -> float:
        value = self._next()
        assert min(low, high) - 1e-9 <= value <= max(low, high) + 1e-9, (low, value, high)
        return value

    def random(self) -> float:
        return self._next()

    def randint(self, low: int, high: int) -> int:
        value = self._next()
        assert low <= value <= high
        return value

    def beta(self, a: float, b: float) -> float:
        assert (a, b) == (32.0, 32.0)
        return self._next()


def write_images(folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES, boxes: int = 4) -> Path:
    """Images of noise and shapes with up to ``boxes`` boxes each, the second one without any; their folder."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number, (w, h) in enumerate(sizes):
        low = Image.fromarray(rng.integers(0, 256, (max(2, h // 6), max(2, w // 6), 3), dtype=np.uint8))
        low.resize((w, h), Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.png")
        centers, extents = rng.uniform(0.1, 0.9, (boxes, 2)), rng.uniform(0.02, 0.6, (boxes, 2))
        low_edge, high_edge = (centers - extents / 2).clip(0, 1), (centers + extents / 2).clip(0, 1)
        rows = np.concatenate([(low_edge + high_edge) / 2, high_edge - low_edge], 1)
        rows[0] = (0.5, 0.5, 1.0, 1.0)  # touches all edges
        lines = [f"{k % 2} " + " ".join(f"{v:.6f}" for v in row) for k, row in enumerate(rows)] if number != 1 else []
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "images"


def arguments_with(**changes: Any) -> Any:
    """Ultralytics' arguments without photometric changes, with ``changes``."""
    given = {**PLAIN, **changes}
    arguments = get_cfg(overrides={name: value for name, value in given.items() if name != "augmentations"})
    arguments.augmentations = given["augmentations"]
    return arguments


def dataset(
    images: Path, side: int = SIDE, *, kind: type[YOLODataset] = YOLODataset, data: Any = None, **arguments: Any
) -> Any:
    """A training set with Ultralytics' transforms that takes the images of mosaics from all of the set."""
    return kind(
        img_path=str(images),
        imgsz=side,
        cache="ram",
        augment=True,
        hyp=arguments_with(**arguments),
        data={"names": {0: "a", 1: "b"}, "channels": 3, **(data or {})},
        task="detect",
    )


def replayed(
    data: Any,
    draws: Draws,
    settings: GeometrySettings,
    monkeypatch: pytest.MonkeyPatch,
    gains: np.ndarray | None = None,
    first: Sequence[int] = (0,),
) -> list[dict[str, Any]]:
    """The samples that Ultralytics makes of the B views of ``draws``, with all its random numbers from there.

    ``gains`` (B, 3), from -1 to 1, are those of the colors. ``first`` are the numbers of the first images of the parts
    that ``data`` consists of, each of which counts its own ones from 0.
    """
    samples = []
    own = draws.images - np.max([np.where(draws.images >= n, n, 0) for n in first], axis=0)
    draws, chosen = replace(draws, images=own), draws.images[:, 0]
    count = len(draws.flips)
    for view in range(count):
        partners = np.flatnonzero(draws.view[count:] == view) + count
        steps = _canvas(draws, view, settings)
        steps += [0.0] if len(partners) else [1.0]
        for partner in partners:
            steps += [int(draws.images[partner, 0]), *_canvas(draws, partner, settings)]
            steps += [float(draws.ratio[partner - count])]
        steps += [1.0]  # cutmix
        steps += [0.0]  # the empty list of Albumentations
        steps += [] if gains is None else [gains[view]]
        steps += [0.0 if flip else 1.0 for flip in draws.flips[view, ::-1]]
        steps += [1.0]  # bgr
        script = Script(steps)
        with monkeypatch.context() as patch:
            patch.setattr(augment, "random", script)
            patch.setattr(augment.np.random, "beta", script.beta)
            if gains is not None:
                patch.setattr(augment.np.random, "uniform", script.gains)
            samples.append(data[int(chosen[view])])
        assert not script.values, "Ultralytics has drawn fewer numbers"
    return samples


def _canvas(draws: Draws, number: int, settings: GeometrySettings) -> list[Any]:
    """The numbers of a mosaic, or of none, and of the affine transform."""
    steps: list[Any] = [1.0]
    if draws.mosaic[number]:
        steps = [0.0, *(int(i) for i in draws.images[number, 1:]), *(float(c) for c in draws.center[number, ::-1])]
    affine = (
        *draws.perspective[number],
        draws.angle[number],
        draws.scale[number],
        *draws.shear[number],
        *(draws.shift[number] / settings.side),
    )
    return steps + [float(value) for value in affine]
