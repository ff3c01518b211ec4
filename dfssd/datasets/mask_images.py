"""Images that are masks of other images, in a source of boxes: they are no photos and must not be trained on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from dfssd.datasets.images.pixels import ImageFacts
from dfssd.wording import counted

Facts = Mapping[Path, ImageFacts | str]

_MASK_FOLDER = re.compile(
    r"(.*[-_ ])?(masks?|segmentation([-_ ]?(class|object)(raw)?)?|ground[-_ ]?truths?|gts?|annotations?|labels?)"
    r"([-_ ](png|jpe?g|images?|bw|color))?",
    re.IGNORECASE,
)
"""Names of folders with masks; whether one holds masks is decided by the photos of the same names. A folder whose name
has something before these words may be one of photos (``bottle_label``): there the pixels have to agree."""

_MASK_STEM = re.compile(r"(.+?)[-_. ](mask|gt|label|seg|segmentation|ground[-_]?truth)s?", re.IGNORECASE)
"""Names of masks beside their photos: ``part7_mask.png``."""

_MOST = 0.1
"""Photos of a source may be drawings themselves (binary scans); then the pixels of others prove nothing."""


def find_masks(images: Iterable[Path], root: Path, facts: Facts) -> dict[Path, Path]:
    """The images that are masks of others of about the same name.

    A mask is called like its photo, with another folder or an ending such as ``_mask``. It lies in a folder called like
    one for masks, or its pixels have a few values only while those of the photo have many.

    Args:
        images: All images of the source.
        root: Its folder.
        facts: Facts of each image, or why it cannot be used.

    Returns:
        Mask -> photo.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem.casefold()].append(image)
    masks: dict[Path, Path] = {}
    for stem, same in by_stem.items():
        if (ending := _MASK_STEM.fullmatch(stem)) and (owners := by_stem.get(ending[1])):
            masks.update((image, owners[0]) for image in same if _drawn(image, facts))
        elif len(same) > 1:
            masks.update(_of_one_name(same, root, facts))
    return masks


def _of_one_name(images: Sequence[Path], root: Path, facts: Facts) -> dict[Path, Path]:
    """Those of several images of one name that are masks of another one of them."""
    masks = [image for image in images if _in_mask_folder(image, root, facts)]
    if len(masks) == len(images):
        masks = []
    photos = sorted(set(images) - set(masks))
    if len({photo.parent for photo in photos}) > 1:
        drawn = {image for image in photos if _drawn(image, facts)}
        if len(drawn) < len(photos):
            masks += drawn
            photos = [image for image in photos if image not in drawn]
    return dict.fromkeys(masks, photos[0])


def find_drawings(images: Iterable[Path], annotated: Collection[Path], facts: Facts) -> list[Path]:
    """The images without labels that look like masks although none is called like a photo, such as ``mask_7.png``.

    Nothing is found where photos with labels look so as well, or where there are none and most images look so.

    Args:
        images: The images of the source without known masks.
        annotated: Those that label files speak of.
        facts: Facts of each image, or why it cannot be used.
    """
    usable = [image for image in images if isinstance(facts.get(image), ImageFacts)]
    known = [image for image in usable if image in annotated]
    drawn = [image for image in usable if image not in annotated and _drawn(image, facts)]
    # An even image says nothing (a closed shutter, a white part), unless it lies among drawings.
    folders = {image.parent for image in drawn if not _constant(image, facts)}
    drawn = [image for image in drawn if image.parent in folders]
    if known:
        like_masks = sum(_drawn(image, facts) for image in known)
        return drawn if like_masks <= _MOST * len(known) else []
    return drawn if 2 * len(drawn) <= len(usable) else []


def told_of_drawings(drawings: Sequence[Path]) -> list[str]:
    """The warning about what :func:`find_drawings` has found; none if it is nothing."""
    if not drawings:
        return []
    return [
        f"{counted(len(drawings), 'image')} without labels, such as {drawings[0]}: not trained on, since even areas "
        "of a few gray values are those of a mask"
    ]


def _drawn(image: Path, facts: Facts) -> bool:
    own = facts.get(image)
    return isinstance(own, ImageFacts) and own.drawn


def _constant(image: Path, facts: Facts) -> bool:
    own = facts.get(image)
    return isinstance(own, ImageFacts) and own.constant


def _in_mask_folder(image: Path, root: Path, facts: Facts) -> bool:
    found = [match for folder in image.parts[len(root.parts) : -1] if (match := _MASK_FOLDER.fullmatch(folder))]
    return any(not match[1] for match in found) or (bool(found) and _drawn(image, facts))
