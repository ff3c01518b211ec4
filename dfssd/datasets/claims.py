"""Which image an annotation belongs to. What is not certain is not guessed: it is a problem that names both files.

A label file without the name of an image belongs to the image beside it, or to the one with the same path, folders
such as ``images`` and ``labels`` left out; failing that to the only image with its stem. A path in an annotation file
names the image whose path ends with it; failing that (such paths are often those of another machine) the only one with
that file name, or else with that stem. Of several, one that shares more folders with the file than the others is meant:
parts of a data set may each have images, labels, and lists of their own. Letter case is ignored. Label Studio puts
eight hexadecimal digits before the names of the files that it exports; they are removed where nothing else fits.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dfssd.datasets.annotations import Annotation, LabelFile
from dfssd.datasets.images.pixels import SUFFIXES, UNREAD_SUFFIXES
from dfssd.datasets.sources import folded, pairing_key, split_of, split_of_list

UPLOAD = re.compile(r"(?!(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))[0-9a-f]{8}[-_](?=.)", re.IGNORECASE)
"""What Label Studio puts before the name of an uploaded file. Dates, as cameras write them, are part of a name."""


@dataclass(frozen=True)
class Match:
    """Images that an annotation may belong to.

    Attributes:
        images: The images; one if it is certain.
        exact: Whether path and name agree, not the bare name alone.
    """

    images: tuple[Path, ...]
    exact: bool


NONE = Match((), exact=False)


class ImageIndex:
    """Finds the images that label files mean."""

    def __init__(self, root: Path, images: Iterable[Path]):
        """Index ``images``, which lie below ``root``."""
        self.root = root
        self._by_key: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            self._by_key[pairing_key(image, root)].append(image)
            self._by_stem[folded(image.stem)].append(image)
            self._by_name[folded(image.name)].append(image)

    def alongside(self, file: Path) -> Match:
        """The image that is called like the label file ``file``."""
        stem = folded(file.stem)
        beside = [image for image in self._by_stem.get(stem, ()) if image.parent == file.parent]
        same = beside or self._by_key.get(pairing_key(file, self.root), [])
        if same:
            return Match(tuple([image for image in same if image.stem == file.stem] or same), exact=True)
        found = self._nearest(self._by_stem.get(stem, []), file)
        if not found and (prefix := UPLOAD.match(file.stem)):
            return Match(self.alongside(file.with_name(file.name[prefix.end() :])).images, exact=False)
        return Match(tuple(found), exact=False)

    def named(self, entry: str, file: Path) -> Match:
        """The image that ``file`` names ``entry``: a path with "/", a file name, or a stem."""
        parts = tuple(folded(part) for part in PurePosixPath(entry).parts if part not in {"/", ".", ".."})
        if not parts:
            return NONE
        same_name = self._by_name.get(parts[-1], [])
        exact = [image for image in same_name if _ends_with(image, parts)]
        if exact:
            same_case = [image for image in exact if image.name == PurePosixPath(entry).name]
            return Match(tuple(self._nearest(same_case or exact, file)), exact=True)
        if same_name:
            return Match(tuple(self._nearest(same_name, file)), exact=False)
        name = PurePosixPath(parts[-1])
        # tables name images without a suffix, and images are converted to another format
        stem = name.stem if name.suffix in SUFFIXES | UNREAD_SUFFIXES else name.name
        if same := self._by_stem.get(stem):
            below = [image for image in same if _ends_with(image.with_suffix(""), (*parts[:-1], stem))]
            return Match(tuple(self._nearest(below or same, file)), exact=False)
        if prefix := UPLOAD.match(parts[-1]):
            return Match(self.named(parts[-1][prefix.end() :], file).images, exact=False)
        return NONE

    def _nearest(self, images: Sequence[Path], file: Path) -> list[Path]:
        """Of several images the one that shares most folders with ``file``, or is of its split; else all of them."""
        if len(images) < 2:
            return list(images)
        split = split_of_list(file, self.root)
        shared = [len(os.path.commonpath([image.parent, file.parent])) for image in images]
        near = [image for image, length in zip(images, shared, strict=True) if length == max(shared)]
        alike = [image for image in images if split is not None and split_of(image, self.root) == split]
        return near if len(near) == 1 else alike if len(alike) == 1 else list(images)


def _ends_with(path: Path, parts: tuple[str, ...]) -> bool:
    return tuple(folded(part) for part in path.parts[-len(parts) :]) == parts


@dataclass
class Claims:
    """Annotations by image.

    Attributes:
        by_image: What is said about each image, in the order of the files.
        orphans: Annotations whose image does not exist.
        problems: (file, reason) of each annotation that may belong to several images.
        by_name: Annotations that have found their image by its name alone, and that image.
        doubtful: Why it is not known what an image shows: it may have the labels of one of the ``problems``.
    """

    by_image: dict[Path, list[Annotation]] = field(default_factory=dict)
    orphans: list[Annotation] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    by_name: list[tuple[Annotation, Path]] = field(default_factory=list)
    doubtful: dict[Path, str] = field(default_factory=dict)


def claim(files: Iterable[LabelFile], index: ImageIndex, same_picture: Callable[[Path, Path], bool]) -> Claims:
    """Assign the annotations of label files to images.

    Args:
        files: In path order.
        index: The images.
        same_picture: Whether two image files show the same pixels: they may share one label file.
    """
    claims = Claims()
    for file in files:
        for annotation in file.annotations:
            match = _match(annotation, len(file.annotations) == 1, index)
            images = match.images
            if not images:
                claims.orphans.append(annotation)
            elif len(images) == 1 or (match.exact and all(same_picture(images[0], other) for other in images[1:])):
                for image in images:
                    claims.by_image.setdefault(image, []).append(annotation)
                if not match.exact:
                    claims.by_name.append((annotation, images[0]))
            else:
                problem = f"{annotation.where} may belong to {_several(images)}; {_remedy(annotation, index)}"
                claims.problems.append((annotation.file, problem))
                claims.doubtful.update(
                    dict.fromkeys(images, f"{annotation.where} may belong to it, or to another image")
                )
    return claims


def unread_labels(broken: Iterable[Path], index: ImageIndex) -> tuple[dict[Path, str], list[Path]]:
    """What is not known because label files cannot be read.

    Returns:
        The images that such a file is the label of, each with the reason, and the files that may hold labels of any.
    """
    doubtful: dict[Path, str] = {}
    of_any = []
    for file in broken:
        match = index.alongside(file)
        doubtful.update(dict.fromkeys(match.images if match.exact else (), f"{file} cannot be read"))
        of_any += [] if match.exact else [file]
    return doubtful, of_any


def _match(annotation: Annotation, alone: bool, index: ImageIndex) -> Match:
    """The images of an annotation; if it is ``alone`` in its file, the name of the file counts as well."""
    if annotation.image is None:
        return index.alongside(annotation.file)
    named = index.named(annotation.image, annotation.file)
    if not alone:
        return named
    beside = index.alongside(annotation.file)
    if not named.images:  # renamed together with its image
        return beside
    if beside.exact and not set(beside.images) & set(named.images):
        return Match((*beside.images, *named.images), exact=False)
    return named


def _remedy(annotation: Annotation, index: ImageIndex) -> str:
    if annotation.image is None:
        return "keep one of the images, or put labels beside the images that they belong to"
    if index.alongside(annotation.file).exact:
        return "it is called like one and names the other: correct the name in it, or its own"
    return "put the folder before the name of the image in it"


def _several(images: Sequence[Path]) -> str:
    shown = " or ".join(str(image) for image in images[:2])
    return shown + (f" or {len(images) - 2} more" if len(images) > 2 else "")
