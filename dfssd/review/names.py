"""The names under which images go to an annotation tool, and the way back to the image.

A name is ``0001-<stem>.<suffix>``: the number is the place in the order of the review, so that tools that sort by name
show the most valuable image first. The stem is that of the image, reduced to what upload forms leave alone; where
several images share it, each gets a hash of its path. It can be made again from the paths alone, so nothing has to be
kept between the way out and the way back.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dfssd.datasets.claims import UPLOAD
from dfssd.datasets.images.pixels import SUFFIXES
from dfssd.datasets.sources import folded

_RANK = re.compile(r"(\d{4,})-(?=.)")
_UNSAFE = re.compile(r"[^\w.-]")


class ReviewNames:
    """The names of the images of a data set."""

    def __init__(self, images: Sequence[Path]):
        """Name ``images``, each listed once; their order does not matter."""
        plain = {image: _UNSAFE.sub("_", image.stem) for image in images}
        shared = Counter(map(folded, plain.values()))
        self._stems = {
            image: stem if shared[folded(stem)] == 1 else f"{stem}-{_short_hash(image)}"
            for image, stem in plain.items()
        }
        self._images = {folded(stem): image for image, stem in self._stems.items()}

    def name(self, image: Path, rank: int) -> str:
        """The file name of an image that is number ``rank`` (from 1) of a review."""
        return f"{rank:04d}-{self._stems[image]}{image.suffix.lower()}"

    def find(self, entry: str) -> Found:
        """The image that a file of an annotation tool names.

        Args:
            entry: A path with "/", a file name, or a stem; with or without rank, and with or without what Label Studio
                puts before the names of uploaded files.
        """
        path = PurePosixPath(entry)
        stem = folded(_UNSAFE.sub("_", path.stem if path.suffix.lower() in SUFFIXES else path.name))
        stems = [stem]
        if upload := UPLOAD.match(stem):
            stems.append(stem[upload.end() :])
        ranked = [(int(rank[1]), own[rank.end() :]) for own in stems if (rank := _RANK.match(own))]
        stems += [own for _, own in ranked]
        images = dict.fromkeys(self._images[own] for own in stems if own in self._images)
        return Found(tuple(images), ranked[0][0] if ranked else None)


@dataclass(frozen=True)
class Found:
    """What a name stands for.

    Attributes:
        images: The images that it may mean; one if it is certain.
        rank: Place in the review that the name states, from 1; None if it states none.
    """

    images: tuple[Path, ...]
    rank: int | None


def _short_hash(image: Path) -> str:
    return hashlib.sha256(image.as_posix().encode("utf-8", "surrogatepass")).hexdigest()[:12]
