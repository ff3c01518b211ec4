"""Pairs of images that can be copies, by their fingerprints: no image is looked at, and time grows linearly.

A pair is a candidate if the hash of one image, in one of eight poses, is within 16 bits of the hash of the other, one
of the 30 nearest, and the spectral prints do not exclude it. Up to 20,000 images, all pairs of hashes are compared.
Beyond, ``usearch`` looks for the nearest hashes in a graph (HNSW, Hamming distance), which finds nearly all of them: of
copies within 4 bits 9,996 of 10,000 among 100,000 images that have a thousand others within 16 bits each, 9,978 among a
million random hashes. A look takes 50 (100,000 images) to 300 microseconds (a million: the graph no longer fits into
the cache of the processor), an entry of the graph 330 bytes. Equal hashes are one entry: thousands of images may share
one, and would cut the graph into pieces. The entries are added in random order (a sorted one makes a worse graph) from
a seed, and by one thread, so that the graph is the same each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dfssd.datasets.copies.fingerprints import Fingerprints, can_be_copies, turned_prints

HASH_BITS = 16
"""Bits up to which the hashes of two images are similar."""

MOST_CANDIDATES = 30
"""Candidates per image and pose, nearest first: thousands of images may have similar hashes, too many to compare."""

EXACT = 20_000
"""Number of images up to which all pairs of hashes are compared."""

_BATCH = 512
"""Images whose candidates are looked for at a time."""

_BITS = 64

_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 16, 128, 64
"""Edges per entry of the graph, and entries looked at when one is added or looked for."""

Candidates = list[tuple[int, int]]
"""Other images that one image can be a copy of, each with the pose of that one image in which both agree."""


def candidates(prints: Fingerprints, turned_to: Sequence[int]) -> Iterator[Candidates]:
    """For each image in order, others that can be copies of it; a pair comes once, or once from each side.

    Args:
        prints: Fingerprints of the images.
        turned_to: The poses to look for, 0 to 7; 0 is the one without a turn.
    """
    n = len(prints)
    upright = np.ascontiguousarray(prints.hashes[:, 0])
    index = _Exact(upright) if n <= EXACT else _Graph(upright)
    for start in range(0, n, _BATCH):
        rows = np.arange(start, min(start + _BATCH, n))
        found: list[Candidates] = [[] for _ in rows]
        for pose in turned_to:
            near, others = index.near(rows, prints.hashes[rows, pose])
            posed = turned_prints(prints.spectral[rows], pose)
            possible = can_be_copies(posed[near - start], prints.spectral[others])
            for i, j in zip(near[possible].tolist(), others[possible].tolist(), strict=True):
                found[i - start].append((j, pose))
        yield from found


class _Exact:
    """Compares all pairs of hashes (n, 8)."""

    def __init__(self, hashes: np.ndarray):
        self._signs = _signs(hashes)

    def near(self, rows: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of one of the images ``rows``, for which ``hashes`` (r, 8) are looked for, and a later image.

        Returns:
            Two arrays of indices (p,); for each row the nearest images first.
        """
        first = int(rows[0]) + 1
        equal = _signs(hashes) @ self._signs[first:].T  # minus different bits
        near, others = np.nonzero(equal >= _BITS - 2 * HASH_BITS)
        distance = -equal[near, others]
        near, others = rows[near], others + first
        after = others > near
        return _nearest(near[after], others[after], distance[after])


class _Graph:
    """Looks for near hashes (n, 8) in a graph."""

    def __init__(self, hashes: np.ndarray):
        from usearch.index import Index, MetricKind, ScalarKind

        different, number = np.unique(hashes.view(np.uint64).ravel(), return_inverse=True)
        self._index: Any = Index(
            ndim=_BITS,
            metric=MetricKind.Hamming,
            dtype=ScalarKind.B1,
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        order = np.random.default_rng(0).permutation(len(different))
        self._index.add(order.astype(np.uint64), different[order].view(np.uint8).reshape(-1, len(hashes[0])), threads=1)
        self._images = np.argsort(number, kind="stable")
        """All images, those with the same hash one after another."""
        size = np.bincount(number, minlength=len(different))
        self._end = np.cumsum(size)
        self._start = self._end - size
        self._rank = number[self._images] * np.int64(len(hashes)) + self._images

    def near(self, rows: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As of :class:`_Exact`, but the other image can also be an earlier one."""
        # The answer to a single hash has another form, hence two at least.
        asked = np.concatenate([hashes, hashes[:1]])
        found = self._index.search(asked, min(MOST_CANDIDATES, len(self._end)), threads=os.cpu_count() or 1)
        keys, distance = found.keys[:-1].astype(np.int64), found.distances[:-1]
        # A search may find fewer entries than it was asked for.
        known = (distance <= HASH_BITS) & (np.arange(keys.shape[1]) < found.counts[:-1, None])
        row, place = np.nonzero(known)
        key, near = keys[row, place], rows[row]
        # Of many images with one hash, those that follow in the order of all images, at its end those before.
        following = np.searchsorted(self._rank, key * len(self._images) + near, side="right")
        start = np.maximum(np.minimum(following, self._end[key] - MOST_CANDIDATES), self._start[key])
        count = np.minimum(self._end[key] - start, MOST_CANDIDATES)
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        others = self._images[np.repeat(start, count) + step]
        near, distance = np.repeat(near, count), np.repeat(distance[row, place], count)
        different = near != others
        return _nearest(near[different], others[different], distance[different])


def _signs(hashes: np.ndarray) -> np.ndarray:
    """Hashes (n, 8) as (n, 64) float32, each bit as 1 or -1: their product counts equal minus different bits."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def _nearest(rows: np.ndarray, others: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The :data:`MOST_CANDIDATES` nearest of the others of each row, the earlier one first where two are as near."""
    order = np.lexsort((others, distance, rows))
    rows, others = rows[order], others[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < MOST_CANDIDATES
    return rows[kept], others[kept]
