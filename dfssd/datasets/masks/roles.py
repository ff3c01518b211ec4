"""Which image files of a folder are masks, and which image each mask belongs to.

Names decide first: folders such as ``masks`` or ``SegmentationClass``, and file names such as ``x_mask.png`` beside
``x.png``. Where they say nothing, or the wrong thing, the pixels decide, if they leave no doubt: a photograph has more
gray levels than a mask has ids, and noise. A mask is paired with an image by rules that cannot join two files by
chance; where two images fit, no one is chosen.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from dfssd.datasets.images.files import map_files
from dfssd.datasets.masks.files import looks_drawn
from dfssd.datasets.sources import split_named

_PART = r"(?:train(?:ing)?|val(?:id)?(?:ation)?|test(?:ing)?|unlabell?ed)?"
_MASKS = (
    r"(?:semantic|binary|pixel|defect|png)?"
    r"(?:masks?|annot(?:ation)?s?|annos?|lab(?:el|le)s?|gts?|groundtruths?"
    r"|seg(?:mentation)?(?:s|class(?:png|raw|aug)?|maps?|masks?|labels?)?)"
    r"(?:png|pngs|masks?|images?|imgs?|ids?)?"
)
_IMAGES = r"(?:jpe?g|png|bmp|rgb|source|original|raw|input)?(?:images?|imgs?|photos?|pictures?)"
_MASK_FOLDER = re.compile(rf"({_PART}){_MASKS}({_PART})")
_IMAGE_FOLDER = re.compile(rf"({_PART}){_IMAGES}({_PART})")
_SHOWN_FOLDER = re.compile(r"segmentation(?:class)?visuali[sz]ations?|segmentationobjects?.*|instances?masks?")
"""Folders of VOC and its tools that hold pictures of masks, or instances instead of classes."""

_WORDS = r"masks?|labels?|gt|ground[_\-. ]?truth|seg(?:mentation)?(?:[_\-. ]?masks?)?|annot(?:ation)?s?"
_MASK_STEM = re.compile(rf"(?:(?:{_WORDS})[_\-. ])?(.+?)(?:[_\-. ](?:{_WORDS}))?", re.DOTALL)
_IMAGE_STEM = re.compile(r"(.+?)(?:[_\-. ](?:images?|img|rgb|photo|orig(?:inal)?))?", re.DOTALL)

_CLEAN = {"good", "ok"}
"""Folders of images without defects in the layout of MVTec AD, which have no masks."""


def _plain(name: str) -> str:
    """The letters and digits of a name."""
    return re.sub(r"[\W_]+", "", name.casefold())


@lru_cache(maxsize=4096)
def _folder(name: str) -> tuple[str, str]:
    """What a folder holds ("mask", "image", "shown", or ""), and what else its name says (a part), if anything."""
    plain = _plain(name)
    if _SHOWN_FOLDER.fullmatch(plain):
        return "shown", ""
    for kind, pattern in (("mask", _MASK_FOLDER), ("image", _IMAGE_FOLDER)):
        if match := pattern.fullmatch(plain):
            return kind, match[1] or match[2]
    return "", name.casefold()


def folders(file: Path, base: Path) -> tuple[str, ...]:
    """Names of the folders between ``base`` and a file; ``..`` where it lies elsewhere."""
    if base in file.parents:
        return file.relative_to(base).parts[:-1]
    return Path(os.path.relpath(file, base)).parts[:-1]


def _kind(file: Path, base: Path) -> str:
    """What the outermost folder that says so holds."""
    return next((kind for name in folders(file, base) if (kind := _folder(name)[0])), "")


def _bare(stem: str, pattern: re.Pattern[str]) -> str:
    match = pattern.fullmatch(stem)
    return match[1] if match else stem


@dataclass(frozen=True)
class _Key:
    """What an image and its mask share, letter case ignored.

    Attributes:
        folders: Folders without those that state a kind.
        parts: The same, with names of parts such as "training" as the part.
        stem: Of the file.
        bare: Stem without words such as "mask".
        name: File name.
    """

    folders: tuple[str, ...]
    parts: tuple[str, ...]
    stem: str
    bare: str
    name: str

    def fits(self, other: _Key) -> bool:
        """Whether the folders of one are those of the other, some left out."""
        short, long = sorted((self.parts, other.parts), key=len)
        rest = iter(long)
        return all(part in rest for part in short)


def _key(file: Path, base: Path, pattern: re.Pattern[str]) -> _Key:
    own = tuple(rest for name in folders(file, base) if (rest := _folder(name)[1]))
    stem = file.stem.casefold()
    return _Key(
        own, tuple(split_named([name]) or name for name in own), stem, _bare(stem, pattern), file.name.casefold()
    )


@dataclass
class Pairing:
    """Which mask belongs to which image.

    Attributes:
        masks: The masks of each image, in path order.
        unclear: The images of each mask that fits several.
        alone: Masks that fit no image.
    """

    masks: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    unclear: dict[Path, list[Path]] = field(default_factory=dict)
    alone: list[Path] = field(default_factory=list)


def pair_masks(images: Iterable[Path], masks: Iterable[Path], base: Path) -> Pairing:
    """Find the image of each mask.

    The first rule that finds an image counts: in the same folders (those that state a kind left out) the file name
    (``x.jpg.png``), the stem, the stem without words such as "mask"; then the same two stems where the folders of one
    are those of the other, some left out (``test/broken/0.png`` and ``ground_truth/broken/0_mask.png``).
    """
    by_name: dict[str, list[tuple[_Key, Path]]] = defaultdict(list)
    by_stem: dict[str, list[tuple[_Key, Path]]] = defaultdict(list)
    by_bare: dict[str, list[tuple[_Key, Path]]] = defaultdict(list)
    for image in images:
        key = _key(image, base, _IMAGE_STEM)
        for index, word in ((by_name, key.name), (by_stem, key.stem), (by_bare, key.bare)):
            index[word].append((key, image))
    found = Pairing()
    for mask in masks:
        own = _key(mask, base, _MASK_STEM)
        lists = [by_name.get(own.stem, []), by_stem.get(own.stem, []), by_stem.get(own.bare, [])]
        lists.append(by_bare.get(own.bare, []))
        near = ([image for key, image in entries if key.folders == own.folders] for entries in lists)
        far = ([image for key, image in entries if key.fits(own)] for entries in lists[1:])
        fitting = next((chosen for chosen in (*near, *far) if chosen), [])
        if len(fitting) == 1:
            found.masks[fitting[0]].append(mask)
        elif fitting:
            found.unclear[mask] = fitting
        else:
            found.alone.append(mask)
    return found


@dataclass
class Sorted:
    """The image files of a folder.

    Attributes:
        images: Photographs.
        pairing: Masks and their images.
        shown: Pictures of masks, and masks of instances.
    """

    images: list[Path]
    pairing: Pairing
    shown: list[Path]


def sort_files(files: Sequence[Path]) -> tuple[Sorted, Path]:
    """Tell photographs from masks and pair them.

    Args:
        files: All image files of a folder, in path order.

    Returns:
        What they are, and the innermost folder that holds all of them.
    """
    base = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
    kinds = {file: _kind(file, base) for file in files}
    shown = [file for file in files if kinds[file] == "shown"]
    masks = [file for file in files if kinds[file] == "mask"]
    photos = [file for file in files if kinds[file] in {"", "image"}]
    masks = sorted([*masks, *_beside(photos, masks, base)])
    photos = sorted(set(photos) - set(masks))
    pairing = pair_masks(photos, masks, base)
    if named_wrongly := _named_wrongly(pairing, photos, masks, base):
        masks = [mask for mask in masks if mask not in named_wrongly]
        photos = sorted([*photos, *named_wrongly])
        pairing = pair_masks(photos, masks, base)
    if drawn := _drawn([photo for photo in photos if not pairing.masks.get(photo)], base):
        masks = sorted([*masks, *drawn])
        photos = [photo for photo in photos if photo not in drawn]
        pairing = _with_drawn(pair_masks(photos, [mask for mask in masks if mask not in drawn], base), drawn)
    return Sorted(photos, pairing, shown), base


def _with_drawn(pairing: Pairing, drawn: dict[Path, Path]) -> Pairing:
    for mask, image in sorted(drawn.items()):
        pairing.masks[image].append(mask)
    return pairing


def _beside(photos: Sequence[Path], masks: Sequence[Path], base: Path) -> Iterator[Path]:
    """Masks among the photographs, ``x_mask.png`` beside ``x.png`` or ``x_image.png``.

    A photograph may be called so: it then has a mask of its own in a folder of masks.
    """
    keys = {photo: _key(photo, base, _IMAGE_STEM) for photo in photos}
    beside = {(photo.parent, word) for photo, key in keys.items() for word in (key.stem, key.bare)}
    in_folders = [_key(mask, base, _MASK_STEM) for mask in masks]
    own = {(key.folders, key.stem) for key in in_folders}
    for photo, key in keys.items():
        bare = _bare(key.stem, _MASK_STEM)
        if bare != key.stem and (photo.parent, bare) in beside and (key.folders, key.stem) not in own:
            yield photo


def _named_wrongly(pairing: Pairing, photos: Sequence[Path], masks: Sequence[Path], base: Path) -> set[Path]:
    """Photographs that are named like masks.

    They have a mask of their own, or would be the second mask of an image, ``part_mask.jpg`` beside ``part.jpg``.
    """
    named = _photographs(pairing.alone)
    retried = pair_masks([*photos, *named], [mask for mask in masks if mask not in named], base)
    found = {file for file in named if retried.masks.get(file)}
    for image, own in pairing.masks.items():
        if len(own) > 1:
            beside = [mask for mask in own if mask.parent == image.parent]
            found.update(_photographs(beside) if len(beside) < len(own) else ())
    return found


def defect_free(images: Iterable[Path], masks: Iterable[Path], root: Path) -> set[Path]:
    """Those of the images without masks that show no defect by the convention of MVTec AD: a folder ``good``.

    Args:
        images: Images without masks.
        masks: Masks of other images; one in a folder ``ground_truth`` shows the layout.
        root: Folder of the source.
    """
    if not any(_plain(name) == "groundtruth" for mask in masks for name in folders(mask, root)):
        return set()
    return {image for image in images if image.parent.name.casefold() in _CLEAN}


def _photographs(masks: Sequence[Path]) -> set[Path]:
    """Those of the files named like masks whose pixels are those of photographs."""
    drawn = map_files(looks_drawn, masks, "Looking at masks")
    return {mask for mask, is_drawn in zip(masks, drawn, strict=True) if is_drawn is False}


def _drawn(photos: Sequence[Path], base: Path) -> dict[Path, Path]:
    """The image of each mask that nothing but its pixels tells from a photograph.

    Two files of one stem lie in two folders beside each other, or in one folder with two suffixes. Of all pairs of
    these two folders or suffixes, one side must look drawn and the other one not.
    """
    groups = defaultdict(list)
    for photo in photos:
        groups[photo.stem.casefold()].append(photo)
    relations: dict[tuple[str, str], list[tuple[Path, Path]]] = defaultdict(list)
    for group in groups.values():
        for first, second in _related(group, base):
            a, b = folders(first, base), folders(second, base)
            differing = next(((x, y) for x, y in zip(a, b) if x != y), (first.suffix.lower(), second.suffix.lower()))
            relations[differing].append((first, second))
    drawn = {}
    for pairs in relations.values():
        files = [file for pair in pairs for file in pair]
        found = map_files(looks_drawn, files, "Looking for masks")
        sides = [set(found[0::2]), set(found[1::2])]
        if sides == [{False}, {True}]:
            drawn.update({second: first for first, second in pairs})
        elif sides == [{True}, {False}]:
            drawn.update(dict(pairs))
    return drawn


def _related(group: Sequence[Path], base: Path) -> Iterator[tuple[Path, Path]]:
    """Pairs of files whose folders differ in one name, or only in the suffix; no file is in two pairs."""
    related = defaultdict(list)
    for i, first in enumerate(group):
        for second in group[i + 1 :]:
            a, b = folders(first, base), folders(second, base)
            if len(a) == len(b) and sum(x != y for x, y in zip(a, b)) <= 1:
                related[first].append(second)
                related[second].append(first)
    for first, others in related.items():
        if len(others) == 1 and len(related[others[0]]) == 1 and first < others[0]:
            yield first, others[0]
