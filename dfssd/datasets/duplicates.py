"""Byte-identical and near-identical images, so that copies of one image never end up on both sides of a split.

Three steps, calibrated on CR7-DET (3,725 images) and NEU-DET (1,800 images):

1. Equal bytes (SHA-1) are one group: 51 surplus files in CR7-DET, 1 in NEU-DET.
2. Perceptual hashes (64-bit pHash) within 16 bits make a pair a *candidate*. The hash alone is not enough: photographs
   of a steel strip look alike, and joining pairs within 10 bits chains 508 different CR7-DET images into one group.
3. A candidate is a copy if its *grain* agrees: both images are reduced to 128x128, the local mean is subtracted and the
   local contrast divided out, and the highest value of their cross-correlation over all (cyclic) shifts must reach
   0.7. This compares the texture of the metal, not a strip edge or a punched hole that many images share: the plain
   correlation reaches 0.93 between different strips.

In CR7-DET the pairs are clearly separated: 54 lie above 0.99 (51 byte-identical and 3 re-encoded ones), four at 0.72 to
0.91 are shifted crops of one scene (checked by eye), and different scenes reach at most 0.65. In NEU-DET one pair is
identical, seven at 0.70 to 0.91 are shifted crops; different scenes stay below 0.2. That makes 58 and 8 groups, each of
two images.

Copies survive JPEG quality 50, half resolution, a change of brightness and small shifts. Mirrored, rotated or heavily
compressed copies, and crops that overlap by less than about nine tenths, are not found (mirrored and rotated ones are
looked for by :mod:`dfssd.datasets.twins`). 11,000 images take a minute on two CPU cores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image

from dfssd.datasets.image_files import gray_values, map_files, open_image

HASH_BITS = 16
GRAIN_CORRELATION = 0.7

SIDE = 128
"""[px] side of the compared images."""

_MAX_CANDIDATES = 30
"""Candidates per image, nearest first: thousands of flat images may share one hash, too many to compare."""

_CHUNK = 512


def duplicate_groups(images: Sequence[Path]) -> list[int]:
    """Group number of each image; copies of one image share it.

    Args:
        images: Readable image files.

    Returns:
        One number per image: the index of the first image of its group.
    """
    images = list(images)
    digests = map_files(_digest, images, "Looking for identical files")
    first: dict[str, int] = {}
    groups = [first.setdefault(digest, i) for i, digest in enumerate(digests)]
    unique = list(first.values())
    if len(unique) < 2:
        return groups
    compared = map_files(_hash_and_reduced, [images[i] for i in unique], "Comparing images")
    candidates = _candidates(np.stack([bits for bits, _ in compared]))

    @lru_cache(maxsize=1024)
    def spectrum(i: int) -> np.ndarray:
        return np.fft.rfft2(grain(compared[i][1]))

    def copies(job: tuple[int, list[int]]) -> list[int]:
        i, others = job
        return [j for j in others if _correlation(spectrum(i), spectrum(j)) >= GRAIN_CORRELATION]

    verified = zip(candidates, map_files(copies, candidates, "Verifying copies"), strict=True)
    joined = join_pairs(len(unique), ((i, j) for (i, _), found in verified for j in found))
    position = {image: i for i, image in enumerate(unique)}
    return [unique[joined[position[group]]] for group in groups]


def join_pairs(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Group number of each of ``n`` items (the index of the first one in its group); a pair belongs to one group."""
    parent = list(range(n))

    def leader(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in pairs:
        a, b = leader(i), leader(j)
        parent[max(a, b)] = min(a, b)
    return [leader(i) for i in range(n)]


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _hash_and_reduced(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Hash as (64,) bool, and the image as (SIDE, SIDE) uint8."""
    gray = _gray(path)
    return imagehash.phash(gray).hash.ravel(), _reduced(gray)


def reduced_image(path: Path) -> np.ndarray:
    """The image file as (SIDE, SIDE) uint8 gray values, whatever its aspect."""
    return _reduced(_gray(path))


def _gray(path: Path) -> Image.Image:
    with open_image(path) as image:
        image.draft("L", (2 * SIDE, 2 * SIDE))
        return gray_values(image)


def _reduced(gray: Image.Image) -> np.ndarray:
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX))


def grain(image: np.ndarray) -> np.ndarray:
    """Texture of a (SIDE, SIDE) uint8 image without shading and contrast: float32, mean 0, norm 1 (0 if flat)."""
    detail = image.astype(np.float32)
    detail -= cv2.GaussianBlur(detail, (0, 0), 2)
    # One gray level is added to the local contrast, so that the rounding noise of a flat region has no effect.
    detail /= np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4)) + 1
    detail -= detail.mean()
    texture: np.ndarray = detail / (np.linalg.norm(detail) + 1e-6)
    return texture


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Highest cross-correlation over all cyclic shifts, given the spectra of two grains; at most 1."""
    return float(np.fft.irfft2(a * b.conj(), s=(SIDE, SIDE)).max())


def _candidates(bits: np.ndarray) -> list[tuple[int, list[int]]]:
    """(i, [j > i whose hash is within ``HASH_BITS``, at most ``_MAX_CANDIDATES`` nearest ones]) for hashes (n, 64)."""
    signs = np.where(bits, 1.0, -1.0).astype(np.float32)
    n, width = signs.shape
    found = []
    for start in range(0, n, _CHUNK):
        distance = (width - signs[start : start + _CHUNK] @ signs.T) / 2
        for row, i in enumerate(range(start, min(start + _CHUNK, n))):
            later = distance[row, i + 1 :]
            near = np.flatnonzero(later <= HASH_BITS)
            nearest = near[np.argsort(later[near], kind="stable")[:_MAX_CANDIDATES]]
            if len(nearest):
                found.append((i, (nearest + i + 1).tolist()))
    return found
