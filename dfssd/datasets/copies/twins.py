"""Images that show the same metal in any of eight poses, and test images that have such a twin in training.

NEU-Seg is the reason: its 4,470 images are some 900 photographs and *composites* of them (a part of one pasted into
another), nearly all stored four times, rotated or flipped and compressed again, and the copies are spread over the two
official splits. Augmentation with the same eight poses turns training images into test images.

Two images are twins if the grain (:mod:`dfssd.datasets.copies.grain`) of a *region* agrees in one of the eight
poses (four rotations, each also mirrored), without any shift:

1. The pose with the highest correlation of the whole grain, sum(a * b), is used if that reaches 0.15.
2. In this pose the two images of 128x128 px are compared in 8x8 tiles, the mean of each row and column of a tile
   subtracted. A tile agrees if the correlation coefficient of the rest reaches 0.2, and counts only as part of a block
   of 3x3 agreeing tiles.
3. Twins agree in a quarter of the tiles or more: copies in nearly all of them, composites in the pasted part.

A single number for the whole image does not suffice. Faint copies reach no more than 0.55, since they share the texture
but not the noise of compression, and *different* strips of CR7-DET, photographed with an edge in the same place, reach
0.65: subtracting the means of rows and columns removes a straight edge. Of the pairs above 0.1:

- CR7-DET: 15,861 pairs; 54 agree in 56 to 64 tiles (51 identical and 3 re-encoded copies), one in 9, the others in
  none.
- NEU-DET: 656 pairs; three agree in 31 to 64 tiles (copies by eye, one of them rotated), one in 9, the others in
  none.
- NEU-Seg, where parts of every size are pasted: 30,268 pairs; 18,723 agree in no tile, 260 in 9 to 16, 11,285 in 18 to
  64; of the 6,836 pairs of whole copies all but three in 24 at least.

In NEU-Seg 810 of the 840 official test images have a twin in training; every threshold from 9 to 40 tiles gives this
number. Chains of twins make 852 groups: 607 of four images, 28 of one, the others composites and their sources, the
largest of 48. The composites matter: grouped by whole copies alone (1,129 groups), a third of the images of a drawn
test part still have a quarter or more of their metal in training.

Twins are found at JPEG quality 50, half resolution and a change of brightness. Shifted crops are found as far as
:func:`dfssd.datasets.copies.duplicates.duplicate_groups` finds them, unrotated. Every pair is compared: 4,470 images
take 36 s on one CPU core and 0.7 GB, twice as many four times as long. Fingerprints do not tell which images hold a
part of another one, so this is done up to 10,000 images, or for the labeled ones alone where there are more. Beyond,
twins are looked for among the pairs with similar fingerprints (:mod:`dfssd.datasets.copies.index`), which finds copies
of whole images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np

from dfssd.datasets.copies.duplicates import Pair, cached_grains, describe_all, duplicate_groups, join_pairs, verified
from dfssd.datasets.copies.fingerprints import Fingerprints
from dfssd.datasets.copies.grain import SIDE, agree_in_place, grain_of, poses, shared_area
from dfssd.datasets.copies.index import candidates
from dfssd.datasets.images.files import map_files, progress
from dfssd.log import LOGGER
from dfssd.wording import counted, short_paths

SHARED_AREA = 0.25
"""Minimum share of the image that twins have in common."""

EXHAUSTIVE = 10_000
"""Number of images up to which every pair is compared; it takes some three minutes of a CPU core, and 1.5 GB."""

_SCREEN = 0.15
"""Correlation of the whole grain below which a pair is skipped; in NEU-Seg twins start at 0.18."""

_CHUNK = 8
"""Images compared with all others at a time, in eight poses each: enough for a fast matrix product."""


@dataclass(frozen=True)
class Leak:
    """A test image with a twin in training.

    Attributes:
        image: The test image.
        twins: Training images that show the same metal.
    """

    image: Path
    twins: tuple[Path, ...]


def find_twins(
    images: Sequence[Path], labeled: Sequence[bool] | None = None, described: Sequence[bytes] | None = None
) -> list[tuple[int, int]]:
    """All pairs of images that show the same metal.

    Args:
        images: Readable image files.
        labeled: Which of them have labels, and are compared with each other first; None: all.
        described: The result of :func:`dfssd.datasets.copies.fingerprints.describe` for each of them, if known.

    Returns:
        Sorted pairs (i, j) of indices, i < j: twins in one of eight poses, and copies by ``duplicate_groups``.

    Raises:
        UserError: A file cannot be read.
    """
    images = list(images)
    described = list(describe_all(images)) if described is None else described
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(duplicate_groups(images, described)):
        members[group].append(i)
    pairs = {pair for group in members.values() for pair in combinations(group, 2)}
    compared = _exhaustively_compared(len(images), labeled)
    if len(compared) < len(images):
        pairs.update(_near_twins(images, Fingerprints.of(described)))
    if len(compared) > 1:
        grains = np.stack(map_files(grain_of, [images[i] for i in compared], "Reading images"))
        pairs.update((compared[i], compared[j]) for i, j in _twins(grains))
    return sorted(pairs)


def twin_groups(n: int, twins: Iterable[tuple[int, int]]) -> list[int]:
    """Group number of each of ``n`` images, given the pairs of :func:`find_twins`; twins of twins are one group."""
    return join_pairs(n, twins)


def find_leaks(
    tested: Iterable[Path], trained: Iterable[Path], images: Sequence[Path], twins: Iterable[tuple[int, int]]
) -> list[Leak]:
    """Test images that have a twin in training.

    Args:
        tested: Test images.
        trained: Training images.
        images: The images that the indices of ``twins`` refer to.
        twins: Pairs of :func:`find_twins`.

    Returns:
        The leaking test images in the order of ``tested``, each with its twins.
    """
    trained = set(trained)
    known: dict[Path, list[Path]] = defaultdict(list)
    for pair in twins:
        a, b = (images[i] for i in pair)
        known[a].append(b)
        known[b].append(a)
    leaks = ((image, tuple(twin for twin in known[image] if twin in trained)) for image in tested)
    return [Leak(image, found) for image, found in leaks if found]


def name_leak(leak: Leak) -> str:
    """The image and the first of its twins, such as ``test/000123.jpg = train/000045.jpg``."""
    return " = ".join(short_paths([leak.image, leak.twins[0]]))


def _exhaustively_compared(n: int, labeled: Sequence[bool] | None) -> list[int]:
    """The images of which every pair is compared."""
    if n <= EXHAUSTIVE:
        return list(range(n))
    found = [i for i in range(n) if labeled is None or labeled[i]]
    if len(found) <= EXHAUSTIVE:
        LOGGER.info(
            f"{counted(n - len(found), 'unlabeled image')}: copies are looked for, not parts of images pasted into "
            "others"
        )
        return found
    LOGGER.warning(
        f"{counted(len(found), 'labeled image')}: copies are looked for, but not parts of images pasted into others, "
        f"for which every pair would have to be compared (done up to {EXHAUSTIVE} images)"
    )
    return []


def _near_twins(images: Sequence[Path], prints: Fingerprints) -> Iterable[tuple[int, int]]:
    """Twins among the pairs with similar fingerprints, each with the files that have the same bytes."""
    same: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(prints.first_alike().tolist()):
        same[first].append(i)
    unique = list(same)
    grain_at = cached_grains([images[i] for i in unique])

    def agree(pair: Pair) -> bool:
        i, j, pose = pair
        return agree_in_place(poses(grain_at(i))[pose], grain_at(j), _SCREEN, SHARED_AREA)

    found = candidates(prints.subset(np.array(unique)), range(8))
    for i, j, _ in verified(progress(found, "Comparing images", len(unique)), agree, lambda _: False):
        for a, b in product(same[unique[i]], same[unique[j]]):
            yield min(a, b), max(a, b)


def _twins(grains: np.ndarray) -> Iterable[tuple[int, int]]:
    """Pairs (i, j), i < j, of grains (n, SIDE, SIDE) that agree in a large enough region of one pose."""
    n = len(grains)
    flat = grains.reshape(n, -1)
    for i in progress(range(n), "Looking for rotated and mirrored copies", n):
        if i % _CHUNK == 0:
            posed = np.stack([poses(image) for image in grains[i : i + _CHUNK]])
            alike = (posed.reshape(-1, SIDE * SIDE) @ flat[i:].T).reshape(len(posed), 8, n - i)
        row = alike[i % _CHUNK, :, i % _CHUNK + 1 :]
        for later in np.flatnonzero(row.max(0) >= _SCREEN).tolist():
            j = i + 1 + later
            if shared_area(posed[i % _CHUNK, row[:, later].argmax()], grains[j]) >= SHARED_AREA:
                yield i, j
