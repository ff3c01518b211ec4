"""What the search for copies keeps of an image: 141 bytes, which depend on the content of its file alone.

1. The SHA-1 of the file.
2. The perceptual hash (64-bit pHash, as of ImageHash) in each of the eight poses of the square, reduced image.
3. The *spectral print*: for 450 frequencies of the grain, whether they are stronger than those around them. A shift
   does not change it at all, a turn or a mirror only permutes it, and lossy compression changes few of the bits. It
   tells in well under a microsecond, without the images, that most pairs with similar hashes are different.

Bits that differ in the spectral print, as a fraction, of pairs whose hashes are within 16 bits: copies and shifted
crops of CR7-DET and NEU-DET at most 0.24; copies at JPEG quality 60 at most 0.30, at quality 30 nine tenths below 0.32;
different images of NEU-DET from 0.41 on; of CR7-DET, which share edges and the direction of rolling, from 0.27 on, 99 %
above 0.33. Of 37,282 candidates without a turn in CR7-DET 417 are left to be looked at, of 90,025 with one 216.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image

from dfssd.datasets.copies.grain import grain, gray_image, poses, reduced, spectrum
from dfssd.errors import UserError

HASH_BYTES = 8

FINGERPRINT = f"fingerprint/1 opencv {cv2.__version__} pillow {PIL.__version__}"
"""Name of the results of :func:`describe` in a cache: another version may decode or compute something else."""

SPECTRAL_BITS = 1 / 3
"""Fraction of the bits of the spectral print up to which two images can be copies."""

_DIGEST_BYTES = 20
_POSES = 8

_HASHED_SIDE = 32
"""[px] The hash looks at the 8x8 lowest frequencies of an image of this side."""

_HIGHEST = 16
"""[periods per image] Highest frequency of the spectral print, across and down."""

_LOWEST = 2
"""[periods per image] Below lies what all images of one line share: edges along the strip."""

_AROUND = 7
"""Side of the square of frequencies that one is compared with."""


def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Which frequencies (down, across), each from -16 to 16, are kept, and the number of each among them.

    A real image has the same amplitude at opposite frequencies, so half of the plane suffices.
    """
    axis = np.arange(-_HIGHEST, _HIGHEST + 1)
    down, across = np.meshgrid(axis, axis, indexing="ij")
    kept = (np.abs(down) >= _LOWEST) & (across >= _LOWEST)
    number = np.full(kept.shape, -1)
    number[kept] = np.arange(kept.sum())
    return kept, np.maximum(number, number[::-1, ::-1])


_KEPT, _NUMBER = _frequencies()
_BITS = int(_KEPT.sum())
_SPECTRAL_BYTES = -(-_BITS // 8)
_PADDED_BYTES = 64

_PERMUTED = [pose[_KEPT] for pose in poses(_NUMBER)]
"""For each pose, the bits of an image that become the bits of the turned one."""

_ONES = np.array([bin(word).count("1") for word in range(1 << 16)], dtype=np.uint8)


def describe(path: Path) -> bytes:
    """The fingerprint of an image file, which is read once.

    Returns:
        SHA-1 of the file, hashes in eight poses (as of :func:`dfssd.datasets.copies.grain.poses`), spectral print.

    Raises:
        UserError: It cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); restore it, or take it out of the data") from e
    gray = gray_image(path, data)
    texture = grain(reduced(gray))
    return hashlib.sha1(data).digest() + _hashes(gray).tobytes() + _spectral_print(texture).tobytes()


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of n images.

    Attributes:
        digests: (n,) SHA-1 of each file, as bytes.
        hashes: (n, 8, 8) uint8, the hash of each pose in 8 bytes.
        spectral: (n, 64) uint8, spectral prints; 0 throughout for a flat image, which has no grain.
    """

    digests: np.ndarray
    hashes: np.ndarray
    spectral: np.ndarray

    @classmethod
    def of(cls, described: Iterable[bytes]) -> Fingerprints:
        """From the results of :func:`describe`."""
        table = np.frombuffer(b"".join(described), np.uint8).reshape(-1, FINGERPRINT_BYTES)
        end = _DIGEST_BYTES + _POSES * HASH_BYTES
        spectral = np.zeros((len(table), _PADDED_BYTES), np.uint8)
        spectral[:, :_SPECTRAL_BYTES] = table[:, end:]
        return cls(
            np.ascontiguousarray(table[:, :_DIGEST_BYTES]).view(f"V{_DIGEST_BYTES}").ravel(),
            np.ascontiguousarray(table[:, _DIGEST_BYTES:end]).reshape(-1, _POSES, HASH_BYTES),
            spectral,
        )

    def __len__(self) -> int:
        return len(self.digests)

    def first_alike(self) -> np.ndarray:
        """(n,) For each image, the index of the first one whose file has the same bytes."""
        _, first, number = np.unique(self.digests, return_index=True, return_inverse=True)
        alike: np.ndarray = first[number.ravel()]
        return alike

    def subset(self, images: np.ndarray) -> Fingerprints:
        """The fingerprints of some of the images, given by their indices."""
        return Fingerprints(self.digests[images], self.hashes[images], self.spectral[images])


FINGERPRINT_BYTES = _DIGEST_BYTES + _POSES * HASH_BYTES + _SPECTRAL_BYTES


def turned_prints(spectral: np.ndarray, pose: int) -> np.ndarray:
    """The spectral prints (n, 64) of images as they are in one of the eight poses."""
    if pose == 0:
        return spectral
    bits = np.unpackbits(spectral[:, :_SPECTRAL_BYTES], axis=1)[:, :_BITS]
    turned = np.zeros_like(spectral)
    turned[:, :_SPECTRAL_BYTES] = np.packbits(bits[:, _PERMUTED[pose]], axis=1)
    return turned


def can_be_copies(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the spectral prints (n, 64) of n pairs are similar enough, (n,) bool; False where an image is flat."""
    words = [np.ascontiguousarray(side).view(np.uint16) for side in (a, b)]
    different = _ONES[words[0] ^ words[1]].sum(axis=1, dtype=np.uint16)
    similar: np.ndarray = (different <= SPECTRAL_BITS * _BITS) & words[0].any(axis=1) & words[1].any(axis=1)
    return similar


def _hashes(gray: Image.Image) -> np.ndarray:
    """(8, 8) uint8: for each pose, whether each of the 8x8 lowest cosines is above their median.

    Mirroring an image turns the sign of its odd cosines, transposing it transposes them.
    """
    small = gray.resize((_HASHED_SIDE, _HASHED_SIDE), Image.Resampling.LANCZOS)
    from scipy.fft import dct  # late, since importing it takes a second, and most runs find what they know already

    cosines = dct(dct(np.asarray(small, dtype=np.float64), axis=0), axis=1)[:8, :8]
    odd = np.where(np.arange(8) % 2, -1.0, 1.0)
    posed = []
    for side in (cosines, cosines.T):
        for quarter in range(4):
            turned = side.T if quarter % 2 else side
            turned = turned * odd[:, None] if quarter in (1, 2) else turned
            posed.append(turned * odd if quarter in (2, 3) else turned)
    values = np.stack(posed).reshape(_POSES, -1)
    return np.packbits(values > np.median(values, axis=1, keepdims=True), axis=1)


def _spectral_print(texture: np.ndarray) -> np.ndarray:
    """(57,) uint8: for each kept frequency of a grain, whether its amplitude is above the mean around it."""
    margin = _AROUND // 2
    reach = _HIGHEST + margin
    amplitude = np.abs(spectrum(texture)[:, : reach + 1])
    half = np.concatenate([amplitude[-reach:], amplitude[: reach + 1]])  # down from -reach on, across from 0 on
    plane = np.concatenate([half[::-1, :0:-1], half], axis=1)
    strong = plane > cv2.blur(plane, (_AROUND, _AROUND))
    return np.packbits(strong[margin:-margin, margin:-margin][_KEPT])
