"""Copies of images, so that they never end up on both sides of a split.

1. Equal bytes (SHA-1) are one image: 51 surplus files in CR7-DET, 1 in NEU-DET.
2. Fingerprints (:mod:`dfssd.datasets.copies.fingerprints`) tell which pairs can be copies
   (:mod:`dfssd.datasets.copies.index`). They are not enough: photographs of a steel strip look alike, and joining pairs
   whose hashes are within 10 bits chains 508 different CR7-DET images into one group.
3. Such a pair is a copy if its grain (:mod:`dfssd.datasets.copies.grain`) agrees, in one of two ways:

   - The highest value of the cross-correlation over all (cyclic) shifts reaches 0.7. This finds shifted crops.
   - It lies at no shift, reaches 0.4, and half of the tiles agree. This finds lossy exports: JPEG at quality 60 of
     noise leaves a correlation of 0.62 to 0.65, and all tiles.

In CR7-DET (3,725 images) 54 pairs lie above 0.99 (51 byte-identical and 3 re-encoded ones), four at 0.72 to 0.91 are
shifted crops of one scene (checked by eye). Different scenes reach 0.67 at a shift, and 0.65 without one, where at most
12 of 64 tiles agree. In NEU-DET (1,800 images) one pair is identical, seven at 0.70 to 0.91 are shifted crops. That
makes 58 and 8 groups, each of two images, the same as by the first way alone; the closest that is left out, a pair of
NEU-DET at 0.65 with 47 tiles, is shifted by a pixel, a crop with less overlap.

Copies in one of the seven other poses of the square (rotated by quarter turns, mirrored) are looked for, too, by the
second way: they join *groups* to *families*. CR7-DET has none, NEU-DET one.

Copies survive JPEG quality 40, half resolution, and a change of brightness. Heavily compressed copies, crops that
overlap by less than about nine tenths, and turned crops are not found.

Images are read twice at most: once for the fingerprint, and again where a pair can be a copy. Pairs that are joined
already are skipped, so that hundreds of frames of a strip at rest take hundreds of comparisons.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from dfssd.datasets.copies.fingerprints import Fingerprints, describe
from dfssd.datasets.copies.grain import agree_in_place, best_shift, grain_of, poses, spectrum
from dfssd.datasets.copies.index import Candidates, candidates
from dfssd.datasets.images.files import THREADS, progress

GRAIN_CORRELATION = 0.7
"""Cross-correlation of the grain from which two images are copies, at whatever shift."""

IN_PLACE_CORRELATION = 0.4
"""Correlation of the grain that suffices where both images show the same in the same place."""

IN_PLACE_AREA = 0.5
"""Fraction of the tiles that agree then."""

VERSION = 1
"""Raised whenever other groups can come out."""

_KEPT = 512
"""Grains, and spectra, kept in memory; 64 KiB each."""

_READ_AHEAD = 4096
"""Images between two looks at the results, so that a million of them are not a million waiting jobs."""


Pair = tuple[int, int, int]
"""An image, another one, and the pose of the first in which both agree."""


@dataclass(frozen=True)
class Copies:
    """Which images are copies of each other.

    Attributes:
        groups: Group number of each image (the index of the first one in its group): copies in the same pose.
        families: As ``groups``, with copies that are rotated by quarter turns or mirrored joined as well.
    """

    groups: tuple[int, ...]
    families: tuple[int, ...]

    def to_text(self) -> str:
        """For a cache."""
        return json.dumps([self.groups, self.families])

    @classmethod
    def from_text(cls, text: str) -> Copies:
        """What :meth:`to_text` wrote."""
        return cls(*map(tuple, json.loads(text)))


class Joined:
    """Groups of n items, each an item of its own at first."""

    def __init__(self, n: int):
        self._parent = list(range(n))

    def first(self, i: int) -> int:
        """The first item of the group of item ``i``."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one group of those of two items."""
        a, b = self.first(i), self.first(j)
        self._parent[max(a, b)] = min(a, b)

    def numbers(self) -> list[int]:
        """Group number of each item: the index of the first one in its group."""
        return [self.first(i) for i in range(len(self._parent))]


def join_pairs(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Group number of each of ``n`` items (the index of the first one in its group); a pair belongs to one group."""
    joined = Joined(n)
    for i, j in pairs:
        joined.join(i, j)
    return joined.numbers()


def duplicate_groups(images: Sequence[Path], described: Iterable[bytes] | None = None) -> list[int]:
    """Group number of each image; copies of one image in the same pose share it.

    Args:
        images: Readable image files.
        described: The result of :func:`dfssd.datasets.copies.fingerprints.describe` for each of them, if known.

    Returns:
        One number per image: the index of the first image of its group.

    Raises:
        UserError: A file cannot be read.
    """
    return list(_find(images, described, turned=False).groups)


def find_copies(images: Sequence[Path], described: Iterable[bytes] | None = None) -> Copies:
    """Which images are copies of each other, upright or in one of the other seven poses of the square.

    Args:
        images: Readable image files.
        described: The result of :func:`dfssd.datasets.copies.fingerprints.describe` for each of them, if known.

    Raises:
        UserError: A file cannot be read.
    """
    return _find(images, described, turned=True)


def signature(described: Iterable[bytes]) -> str:
    """What the result of :func:`find_copies` depends on, in hex: the contents of the files, in their order."""
    digest = hashlib.sha256(f"copies {VERSION}".encode())
    for fingerprint in described:
        digest.update(fingerprint)
    return digest.hexdigest()


def describe_all(images: Sequence[Path]) -> Iterator[bytes]:
    """The fingerprints of image files in order, with a progress bar; read in a pool of threads."""

    def stream() -> Iterator[bytes]:
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(images), _READ_AHEAD):
                yield from pool.map(describe, images[start : start + _READ_AHEAD])

    yield from progress(stream(), "Reading images", len(images))


def _find(images: Sequence[Path], described: Iterable[bytes] | None, *, turned: bool) -> Copies:
    prints = Fingerprints.of(describe_all(images) if described is None else described)
    alike = prints.first_alike()
    unique = np.unique(alike)
    prints = prints.subset(unique)
    files = [images[i] for i in unique.tolist()]
    groups, families = Joined(len(files)), Joined(len(files))

    def known(pair: Pair) -> bool:
        i, j, pose = pair
        joined = families if pose else groups
        return joined.first(i) == joined.first(j)

    found = progress(candidates(prints, range(8) if turned else (0,)), "Comparing images", len(files))
    for i, j, pose in verified(found, _check(files), known):
        families.join(i, j)
        if not pose:
            groups.join(i, j)
    position = np.searchsorted(unique, alike)
    numbers = (unique[np.array(joined.numbers(), dtype=int)][position] for joined in (groups, families))
    return Copies(*(tuple(found.tolist()) for found in numbers))


def verified(
    found: Iterable[Candidates], agree: Callable[[Pair], bool], known: Callable[[Pair], bool]
) -> Iterator[Pair]:
    """The candidates that agree, in order; checked in a pool of threads.

    Args:
        found: The result of :func:`dfssd.datasets.copies.index.candidates`.
        agree: Looks at the images of a pair.
        known: Whether a pair needs no check, and is left out; may change meanwhile.
    """
    pairs = ((i, j, pose) for i, others in enumerate(found) for j, pose in others)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(pairs, 4 * THREADS)):
            open_pairs = [pair for pair in batch if not known(pair)]
            yield from (pair for pair, same in zip(open_pairs, pool.map(agree, open_pairs), strict=True) if same)


def cached_grains(files: Sequence[Path]) -> Callable[[int], np.ndarray]:
    """Function from the number of a file to its grain; the last ones are kept in memory."""

    @lru_cache(_KEPT)
    def grain_at(i: int) -> np.ndarray:
        return grain_of(files[i])

    return grain_at


def _check(files: Sequence[Path]) -> Callable[[Pair], bool]:
    """Function that tells whether a pair of files are copies."""
    grain_at = cached_grains(files)

    @lru_cache(_KEPT)
    def spectrum_at(i: int) -> np.ndarray:
        return spectrum(grain_at(i))

    def agree(pair: Pair) -> bool:
        i, j, pose = pair
        if not pose:
            correlation, in_place = best_shift(spectrum_at(i), spectrum_at(j))
            if correlation >= GRAIN_CORRELATION or not in_place:
                return correlation >= GRAIN_CORRELATION
        return agree_in_place(poses(grain_at(i))[pose], grain_at(j), IN_PLACE_CORRELATION, IN_PLACE_AREA)

    return agree
