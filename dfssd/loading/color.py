"""Colors of uint8 images in OpenCV's conventions, for a batch on any device: HSV, Lab, and gray.

OpenCV computes with rounded integers. The same integers here mean that a view made on the device has the colors of the
one that OpenCV makes, and not only similar ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dfssd.loading.pixels import apply_tables, constants, in_chunks, look_up, to_device


def sample_gains(rng: np.random.Generator, n: int, limits: tuple[float, float, float]) -> np.ndarray:
    """Gains of hue, saturation, and value as Ultralytics' ``RandomHSV`` draws them.

    Args:
        rng: Source of the random numbers.
        n: Number of images.
        limits: ``hsv_h``, ``hsv_s``, ``hsv_v``.

    Returns:
        (n, 3) float64, uniform in +-``limits``.
    """
    return rng.uniform(-1, 1, (n, 3)) * limits


def hsv_tables(gains: np.ndarray) -> np.ndarray:
    """Tables from OpenCV's hue, saturation, and value to new colors.

    Args:
        gains: (B, 3) of hue (1 = a full turn), saturation, and value.

    Returns:
        (B, 5, 256) float32: how far a saturated color of the new hue is from its value in red, green, and blue, then
        the new saturation and value; all 0 to 1. New hue ``(x + 180 g) mod 180``, saturation and value ``x (1 + g)``
        up to 255, each rounded down to a whole number; a gray stays gray.
    """
    x = np.arange(256.0)
    g = gains[:, :, None]
    new = np.stack(((x + g[:, 0] * 180) % 180, *(np.clip(x * (g[:, i] + 1), 0, 255) for i in (1, 2))), 1)
    new[:, 1, 0] = 0
    new = new.astype(np.uint8)
    return np.concatenate((_distances()[:, new[:, 0]].swapaxes(0, 1), new[:, 1:] * np.float32(1 / 255)), 1)


@lru_cache(maxsize=1)
def _distances() -> np.ndarray:
    """Of red, green, and blue from the value, for each of 180 hues and full saturation: (3, 180) float32."""
    hue = np.arange(180, dtype=np.float32) * np.float32(6 / 180)
    part = hue % 1
    sixths = {"near": 0 * part, "far": 0 * part + 1, "leaving": part, "coming": 1 - part}
    names = ("near", "leaving", "far", "far", "coming", "near")  # of red, from hue 0 on
    which = np.floor(hue).astype(int)
    red, green, blue = (np.choose((which + turn) % 6, [sixths[name] for name in names]) for turn in (0, 4, 2))
    return np.stack((red, green, blue))


def hsv(images: Tensor, gains: np.ndarray) -> Tensor:
    """Ultralytics' ``RandomHSV`` with given gains.

    Args:
        images: (B, 3, H, W) uint8, RGB.
        gains: (B, 3) of hue (1 = a full turn), saturation, and value: :func:`sample_gains`.

    Returns:
        A new tensor of the same shape and type. Gray pixels stay gray.
    """
    if not gains.any():
        return images.clone()
    return change_hsv(images, *to_device([hsv_tables(gains)], images.device))


def change_hsv(images: Tensor, tables: Tensor) -> Tensor:
    """New images with hue, saturation, and value by tables of :func:`hsv_tables`."""
    return in_chunks(_change_hsv, images, tables)


def _change_hsv(images: Tensor, tables: Tensor) -> Tensor:
    h, s, v = rgb_to_hsv(images)
    distance, s, v = apply_tables(torch.cat((h, h, h, s, v), 1), tables).split((3, 1, 1), 1)
    # OpenCV cuts the decimals off here, but for the last columns of a row that fill no vector.
    return (1 - distance.mul_(s)).mul_(v).mul_(255).to(torch.uint8)


def rgb_to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's ``COLOR_RGB2HSV``.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        Hue 0 to 179, saturation and value 0 to 255, each (B, 1, H, W), whole numbers.
    """
    c = _hsv_constants(images.device)
    x = images.short()
    value, brightest = x.max(1, keepdim=True)
    spread = value - x.amin(1, keepdim=True)
    saturation = (look_up(c["saturation"], value.int()).mul_(spread)).add_(2048) >> 12
    # (g - b, b - r, r - g), each with the sixth of the circle in which it counts
    hue = (x.roll(-1, 1) - x.roll(-2, 1)).add_(spread * c["sixths"]).gather(1, brightest)
    hue = (look_up(c["hue"], spread.int()).mul_(hue)).add_(2048) >> 12
    return hue.remainder_(180), saturation, value


@lru_cache(maxsize=8)
def _hsv_constants(device: torch.device) -> dict[str, Tensor]:
    levels = np.arange(1, 256)
    arrays: dict[str, np.ndarray] = {
        "gray": np.array([9798, 19235, 3735], np.float32).reshape(3, 1, 1),  # 0.299, 0.587, 0.114 in 2^-15
        "sixths": np.array([0, 2, 4], np.int16).reshape(3, 1, 1),
        "saturation": np.append(0, np.rint((255 << 12) / levels)).astype(np.int32),
        "hue": np.append(0, np.rint((180 << 12) / (6 * levels))).astype(np.int32),
    }
    return constants(arrays, device)


def gray(images: Tensor) -> Tensor:
    """OpenCV's ``COLOR_RGB2GRAY``: (B, 3, H, W) uint8 to (B, 1, H, W) float32, whole numbers 0 to 255."""
    # Whole numbers below 2^24: float32 holds them exactly.
    total = (images * _hsv_constants(images.device)["gray"]).sum(1, keepdim=True)
    return total.mul_(2**-15).add_(0.5).floor_()


def rgb_to_lab(images: Tensor) -> Tensor:
    """OpenCV's ``COLOR_RGB2LAB``: (B, 3, H, W) uint8 to int32; L, a + 128, b + 128, each 0 to 255."""
    c = _lab_constants(images.device)
    linear = look_up(c["linear"], images.int())
    # Whole numbers below 2^24: float32 holds them exactly.
    xyz = (linear.unsqueeze(1) * c["to_xyz"]).sum(2).int().add_(2048) >> 12
    root = look_up(c["root"], xyz)
    color = (root[:, :2] - root[:, 1:]).mul_(c["spread"]).add_((128 << 15) + (1 << 14)) >> 15
    return torch.cat((look_up(c["lightness"], xyz[:, 1:2]), color), 1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """OpenCV's ``COLOR_LAB2RGB``: (B, 3, H, W) int32 of :func:`rgb_to_lab` to uint8."""
    c = _lab_constants(lab.device)
    lightness, a, b = lab.split(1, 1)
    x = look_up(c["cube"], look_up(c["f"], lightness).add_(look_up(c["a"], a)))
    z = look_up(c["cube"], look_up(c["f"], lightness).sub_(look_up(c["b"], b)))
    y = look_up(c["y"], lightness)
    rgb = (c["from_xyz"][0] * x).add_(c["from_xyz"][1] * y).add_(c["from_xyz"][2] * z)
    return look_up(c["gamma"], (rgb.add_(1 << 13) >> 14).clamp_(0, 4095))


@lru_cache(maxsize=8)
def _lab_constants(device: torch.device) -> dict[str, Tensor]:
    """The integer tables of OpenCV's Lab: sRGB in 2^-11, roots in 2^-15 and 2^-14, XYZ in 2^-14, matrices in 2^-12."""
    white = np.array([0.950456, 1.0, 1.088754])
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    from_xyz = np.array(
        [[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]]
    )
    levels = np.arange(256)
    x = levels / 255
    linear = np.rint(2040 * np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4))
    t = np.arange(3072, dtype=np.float32) / np.float32(2040)  # in single precision, as OpenCV rounds them
    root = np.rint((1 << 15) * np.where(t < 0.008856, t * np.float32(7.787) + np.float32(16 / 116), np.cbrt(t)))
    lightness = (root.astype(np.int64) * 296 - 1336934 + (1 << 14)) >> 15
    dark = levels <= 20  # L up to 8, where the root is a straight line
    y = np.where(dark, 100 * x / 903.3, ((100 * x + 16) / 116) ** 3)
    f = np.where(dark, 7.787 * y + 16 / 116, (100 * x + 16) / 116)
    k = np.arange(-8145, (9 << 12) - 8145)  # all that f + a and f - b can be
    line = np.sign(k) * (np.abs(k) * 108 // 841) - (16 << 14) // 116 * 108 // 841
    cube = np.where(k <= 3390, line, k * k // (1 << 14) * k // (1 << 14))
    u = np.arange(4096) / 4096
    gamma = np.rint(255 * np.where(u <= 0.0031308, u * 12.92, 1.055 * u ** (1 / 2.4) - 0.055))
    arrays: dict[str, np.ndarray] = {
        "linear": linear.astype(np.float32),
        "to_xyz": np.rint(4096 * to_xyz / white[:, None]).astype(np.float32).reshape(3, 3, 1, 1),
        "root": root.astype(np.int32),
        "lightness": lightness.astype(np.int32),
        "spread": np.array([500, 200], np.int32).reshape(2, 1, 1),
        "y": np.rint((1 << 14) * y).astype(np.int32),
        "f": np.rint((1 << 14) * f).astype(np.int32) + 8145,
        "a": ((5 * levels * 53687 + (1 << 7) >> 13) - 4194).astype(np.int32),
        "b": ((levels * 41943 + (1 << 4) >> 9) - 10484).astype(np.int32),
        "cube": cube.astype(np.int32),
        "from_xyz": np.rint(4096 * from_xyz * white).astype(np.int32).T.reshape(3, 3, 1, 1),
        "gamma": gamma.astype(np.uint8),
    }
    return constants(arrays, device)
