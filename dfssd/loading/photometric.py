"""Photometric transforms of albumentations for a whole batch, on any device.

What a transform draws at random is drawn on the host, for all images at once, from the distributions of albumentations;
what it does to pixels is done on the device, for the chosen images only, with the results of OpenCV. So a view costs a
number of operators that does not depend on the size of the batch, and the host never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from dfssd.loading.color import change_hsv, gray, hsv_tables
from dfssd.loading.contrast import count_limits, equalize, tile_shape
from dfssd.loading.filters import box_kernel, convolve, gaussian_kernel, median, motion_kernel, same_size
from dfssd.loading.pixels import apply_tables, in_chunks, to_device


@dataclass(frozen=True)
class Change:
    """One operation on some images of a batch.

    Attributes:
        operation: Gets the images (k, 3, H, W) uint8 and ``values`` on their device, and returns new images.
        rows: Their places in the batch, (k,) int64, each once.
        values: Parameters of each image, (k, ...).
        random: ``operation`` needs a ``generator``, too.
    """

    operation: Callable[..., Tensor]
    rows: np.ndarray
    values: np.ndarray
    random: bool = False


class PhotometricViews:
    """The same changes as an ``albumentations.Compose``, for batches.

    Known are ``RandomBrightnessContrast``, ``ColorJitter``, ``CLAHE``, ``ToGray``, ``Blur``, ``GaussianBlur``,
    ``MedianBlur``, ``MotionBlur``, ``GaussNoise``, ``CoarseDropout``, and ``OneOf`` of them. What has probability 0 is
    left out.
    """

    def __init__(self, transforms: A.BaseCompose | Sequence[A.BasicTransform | A.BaseCompose], *, bgr: bool = False):
        """Set the transforms.

        Args:
            transforms: In their order.
            bgr: The transforms are meant for images with blue first, as Ultralytics gives them to albumentations, which
                takes blue for red. The images here are RGB all the same.

        Raises:
            ValueError: A transform is not known, or has a setting that is not.
        """
        if isinstance(transforms, A.BaseCompose):
            if type(transforms) is not A.Compose or transforms.p < 1:
                raise ValueError(f"{type(transforms).__name__}(p={transforms.p}) must be a Compose with p=1")
            transforms = transforms.transforms
        self.transforms = [t for t in transforms if t.p > 0]
        for t in self.transforms:
            _check(t)
        self.bgr = bgr

    def sample(self, rng: np.random.Generator, n: int, shape: tuple[int, int]) -> list[Change]:
        """Draw changes.

        Args:
            rng: Source of the random numbers.
            n: Images in the batch.
            shape: Their height and width [px].

        Returns:
            The changes, in their order; those that hit no image are left out.
        """
        changes = []
        for t in self.transforms:
            rows = np.flatnonzero(rng.random(n) < t.p)
            changes += _one_of(t, rng, rows, shape) if isinstance(t, A.OneOf) else _leaf(t, rng, rows, shape)
        return changes

    def change(self, images: Tensor, rng: np.random.Generator, noise: torch.Generator) -> Tensor:
        """Images (B, 3, H, W) uint8, RGB, with changes that are drawn for them; those given, if none is.

        Args:
            images: The images.
            rng: Source of the random numbers.
            noise: Generator on the device of the images, which is seeded from ``rng`` where it is needed.
        """
        changes = self.sample(rng, len(images), (images.shape[2], images.shape[3]))
        if any(change.random for change in changes):
            noise.manual_seed(int(rng.integers(2**62)))
        return self.apply(images, changes, noise) if changes else images

    def apply(self, images: Tensor, changes: Sequence[Change], generator: torch.Generator | None = None) -> Tensor:
        """The changed images.

        Args:
            images: (B, 3, H, W) uint8, RGB.
            changes: Of :meth:`sample`.
            generator: Source of the noise, on the device of the images. Needed for ``GaussNoise`` only.

        Returns:
            A new tensor of the same shape and type; images that no change hits are equal to the given ones.
        """
        out = images.clone()
        moved = to_device([array for c in changes for array in (c.rows, c.values)], images.device)
        for change, rows, values in zip(changes, moved[::2], moved[1::2], strict=True):
            part = out.index_select(0, rows)
            part = part.flip(1) if self.bgr else part
            part = change.operation(part, values, **({"generator": generator} if change.random else {}))
            out.index_copy_(0, rows, part.flip(1) if self.bgr else part)
        return out


def add_noise(images: Tensor, noise: Tensor) -> Tensor:
    """Add ``noise`` (B, 1 or 3, H, W) [gray levels], its decimals cut off, to uint8 images (B, 3, H, W)."""
    return (images + noise.to(torch.int16)).clamp_(0, 255).to(torch.uint8)


def cut_out(images: Tensor, holes: Tensor, *, fill: float) -> Tensor:
    """Fill rectangles with one gray level.

    Args:
        images: (B, 3, H, W) uint8.
        holes: (B, n, 4) int32: left, top, right, bottom [px], the latter two exclusive; empty where equal.
        fill: The level.
    """
    left, top, right, bottom = holes.unsqueeze(2).unbind(-1)
    y, x = (torch.arange(n, device=images.device) for n in images.shape[2:])
    rows = (y >= top).logical_and_(y < bottom)
    columns = (x >= left).logical_and_(x < right)
    hidden = (rows.unsqueeze(3) & columns.unsqueeze(2)).any(1, keepdim=True)
    return images.masked_fill(hidden, fill)


def blend(images: Tensor, values: Tensor) -> Tensor:
    """Mix images with black, with their mean gray, or with their gray version: ``f x + m mean + g gray + c``.

    Args:
        images: (B, 3, H, W) uint8, RGB.
        values: (B, 4) float32: f, m, g, c of each image: see :func:`blend_values`. Decimals are cut off.
    """
    return in_chunks(_blend, images, values)


def _blend(images: Tensor, values: Tensor) -> Tensor:
    f, m, g, c = values.view(-1, 4, 1, 1).split(1, 1)
    flat = gray(images)
    level = flat.mean((2, 3), keepdim=True).mul_(m).add_(c)
    return (images * f).add_(flat.mul_(g).add_(level)).clamp_(0, 255).to(torch.uint8)


def blend_values(factors: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """What :func:`blend` needs to be a function of albumentations.

    Args:
        factors: (B,), 1 changes nothing.
        kinds: (B,): 0 brightness, 1 contrast (against the mean gray), 2 saturation (against the gray image). Only the
            last one is rounded.

    Returns:
        (B, 4) float32.
    """
    values = np.stack((factors, (1 - factors) * (kinds == 1), (1 - factors) * (kinds == 2), 0.5 * (kinds == 2)), 1)
    return values.astype(np.float32)


def _to_tables(images: Tensor, tables: Tensor) -> Tensor:
    return in_chunks(apply_tables, images, tables)


def _to_gray(images: Tensor, _: Tensor) -> Tensor:
    return gray(images).to(torch.uint8).expand_as(images)


def _to_median(images: Tensor, _: Tensor, *, size: int) -> Tensor:
    return median(images, size)


def _to_noisy(images: Tensor, std: Tensor, *, generator: torch.Generator | None) -> Tensor:
    b, _, h, w = images.shape
    noise = torch.randn((b, 1, h, w), generator=generator, device=images.device)
    return add_noise(images, noise.mul_(std.view(-1, 1, 1, 1)))


def _one_of(t: A.OneOf, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    """Changes by one of several transforms each; those by convolutions become one change."""
    which = rng.choice(len(t.transforms), size=len(rows), p=t.transforms_ps)
    changes = [c for i, part in enumerate(t.transforms) for c in _leaf(part, rng, rows[which == i], shape)]
    blurs = [c for c in changes if c.operation is convolve]
    if len(blurs) < 2:
        return changes
    kernels = same_size([kernel for c in blurs for kernel in c.values])
    merged = Change(convolve, np.concatenate([c.rows for c in blurs]), kernels)
    return [c for c in changes if c.operation is not convolve] + [merged]


def _leaf(t: A.BasicTransform, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    return _KNOWN[type(t)].draw(t, rng, rows, shape) if len(rows) else []


def _draw_exposure(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    contrast = 1 + _uniform(rng, t.contrast_limit, (len(rows), 1, 1))
    brightness = 255 * _uniform(rng, t.brightness_limit, (len(rows), 1, 1))
    x = np.arange(256, dtype=np.float32)
    tables = x * contrast.astype(np.float32) + brightness.astype(np.float32)
    return [Change(_to_tables, rows, np.clip(tables, 0, 255).astype(np.uint8))]


def _draw_jitter(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    """Brightness, contrast, saturation, and hue in a random order: what comes before the hue, the hue, and the rest."""
    k = len(rows)
    factors = np.stack([_uniform(rng, limits, k) for limits in (t.brightness, t.contrast, t.saturation, t.hue)], 1)
    order = rng.permuted(np.tile(np.arange(4), (k, 1)), axis=1)
    place_of_hue = order.argmax(1)

    def step(place: int, images: np.ndarray) -> list[Change]:
        kind = order[images, place]
        values = blend_values(factors[images, kind], kind)
        return [Change(blend, rows[images], values)] if len(images) else []

    before = [c for i in range(3) for c in step(i, np.flatnonzero(place_of_hue > i))]
    after = [c for i in range(1, 4) for c in step(i, np.flatnonzero(place_of_hue < i))]
    gains = np.pad(factors[:, 3:], ((0, 0), (0, 2)))
    return [*before, Change(change_hsv, rows, hsv_tables(gains)), *after]


def _draw_clahe(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    columns, lines = t.tile_grid_size
    limits = count_limits(_uniform(rng, t.clip_limit, len(rows)), tile_shape(*shape, (lines, columns)))
    return [Change(partial(equalize, grid=(lines, columns)), rows, limits)]


def _draw_gray(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    return [Change(_to_gray, rows, np.empty((len(rows), 0), np.float32))]


def _uniform(rng: np.random.Generator, limits: tuple[float, float], shape: int | tuple[int, ...]) -> np.ndarray:
    return rng.uniform(limits[0], limits[1], shape)


def _odd(rng: np.random.Generator, limits: tuple[int, int], n: int) -> np.ndarray:
    """Odd sizes, all equally often, from one odd limit to the other."""
    return limits[0] + 2 * rng.integers(0, (limits[1] - limits[0]) // 2 + 1, n)


def _draw_box(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    kernels = [box_kernel(size) for size in _odd(rng, t.blur_limit, len(rows))]
    return [Change(convolve, rows, same_size(kernels))]


def _draw_gaussian(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    sigmas = _uniform(rng, t.sigma_limit, len(rows))
    sizes = rng.integers(t.blur_limit[0], t.blur_limit[1] + 1, len(rows))
    sizes = np.where(sizes == 0, (sigmas * 3.5).astype(int) * 2 + 1, sizes)
    kernels = [gaussian_kernel(sigma, size + (size + 1) % 2) for sigma, size in zip(sigmas, sizes, strict=True)]
    return [Change(convolve, rows, same_size(kernels))]


def _draw_motion(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    k = len(rows)
    sizes, shifts = _odd(rng, t.blur_limit, k), rng.uniform(-1, 1, (k, 2)) * t.allow_shifted
    angles, directions = _uniform(rng, t.angle_range, k), _uniform(rng, t.direction_range, k)
    kernels = [motion_kernel(*line) for line in zip(sizes, angles, directions, shifts, strict=True)]
    return [Change(convolve, rows, same_size(kernels))]


def _draw_median(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    sizes = _odd(rng, t.blur_limit, len(rows))
    return [
        Change(partial(_to_median, size=int(size)), rows[sizes == size], np.empty((np.sum(sizes == size), 0), np.uint8))
        for size in np.unique(sizes)
    ]


def _draw_noise(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    std = 255 * _uniform(rng, t.std_range, len(rows))
    return [Change(_to_noisy, rows, std.astype(np.float32), random=True)]


def _draw_holes(t: Any, rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]) -> list[Change]:
    most = t.num_holes_range[1]
    real = np.arange(most) < rng.integers(t.num_holes_range[0], most + 1, (len(rows), 1))
    ends = []
    for whole, limits in zip(shape, (t.hole_height_range, t.hole_width_range), strict=True):
        side = (whole * _uniform(rng, limits, real.shape)).astype(int)
        start = rng.integers(0, whole - side + 1)
        ends.append((start, start + side * real))
    (top, bottom), (left, right) = ends
    holes = np.stack((left, top, right, bottom), -1).astype(np.int32)
    return [Change(partial(cut_out, fill=t.fill), rows, holes)]


@dataclass(frozen=True)
class _Known:
    """How the parameters of a transform are drawn, and with which settings it is known."""

    draw: Callable[[Any, np.random.Generator, np.ndarray, tuple[int, int]], list[Change]]
    fits: Callable[[Any], bool] = lambda t: True


_KNOWN: dict[type, _Known] = {
    A.RandomBrightnessContrast: _Known(_draw_exposure, lambda t: t.brightness_by_max and not t.ensure_safe_range),
    A.ColorJitter: _Known(_draw_jitter),
    A.CLAHE: _Known(_draw_clahe),
    A.ToGray: _Known(_draw_gray, lambda t: (t.method, t.num_output_channels) == ("weighted_average", 3)),
    A.Blur: _Known(_draw_box),
    A.GaussianBlur: _Known(_draw_gaussian),
    A.MotionBlur: _Known(_draw_motion),
    A.MedianBlur: _Known(_draw_median),
    A.GaussNoise: _Known(
        _draw_noise, lambda t: t.mean_range == (0, 0) and t.noise_scale_factor == 1 and not t.per_channel
    ),
    A.CoarseDropout: _Known(
        _draw_holes,
        lambda t: isinstance(t.fill, (int, float)) and t.hole_height_range[1] < 1 and t.hole_width_range[1] < 1,
    ),
}


def _check(t: A.BasicTransform | A.BaseCompose) -> None:
    if type(t) is A.OneOf:
        for part in t.transforms:
            _check(part)
    elif type(t) not in _KNOWN:
        raise ValueError(f"{type(t).__name__} cannot be applied to a batch")
    elif not _KNOWN[type(t)].fits(t):
        raise ValueError(f"{t!r} cannot be applied to a batch with these settings")
