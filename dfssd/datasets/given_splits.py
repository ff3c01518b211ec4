"""Splits that a source states: lists of images, and names of folders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dfssd.datasets.annotations import Annotation, DescriptionFile, SplitFile
from dfssd.datasets.claims import ImageIndex
from dfssd.datasets.sources import split_folder, split_named, split_of, split_of_list
from dfssd.errors import UserError
from dfssd.wording import counted

MAIN = "Main"
"""Folder of ``ImageSets`` that holds the splits for boxes; the others are for other tasks."""


@dataclass
class GivenSplits:
    """What a source states.

    Attributes:
        by_image: Split of each image that a list names.
        used: The lists that name images of the source.
        unused: The other lists, each with the reason.
        warnings: What a user should know.
    """

    by_image: dict[Path, str] = field(default_factory=dict)
    used: list[Path] = field(default_factory=list)
    unused: dict[Path, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def lists_of(description: DescriptionFile) -> dict[str, str]:
    """Split of each list that a description of Darknet names, by the name of its file."""
    found = {}
    for key, entry in description.entries.items():
        if split := split_named([key.strip()]):
            found[PurePosixPath(entry.replace("\\", "/")).name] = split
    return found


def listed_splits(lists: Sequence[SplitFile], index: ImageIndex) -> GivenSplits:
    """The splits that lists of images state.

    Raises:
        UserError: Two lists put an image into different splits, or a list and the folder of the image do.
    """
    given = GivenSplits()
    main = {own.file.parent.parent for own in lists if own.file.parent.name == MAIN}
    origin: dict[Path, Path] = {}
    for own in lists:
        if own.file.parent.parent in main and own.file.parent.name != MAIN:
            given.unused[own.file] = f"a list for another task than {MAIN}/"
            continue
        found, lacking = _images_of(own, index)
        if not found:
            given.unused[own.file] = "none of the images that it lists is in the data"
            continue
        given.used.append(own.file)
        if lacking:
            shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            given.warnings.append(
                f"{own.file}: {counted(len(lacking), 'listed image is', 'listed images are')} not in the data ({shown})"
            )
        for image in found:
            if given.by_image.setdefault(image, own.split) != own.split:
                raise UserError(f"{image} is in {origin[image]} and in {own.file}; keep it in one of the two lists")
            origin.setdefault(image, own.file)
            folder = split_of(image, index.root)
            if folder not in {None, own.split}:
                raise UserError(
                    f"{own.file} puts {image} into {own.split}, but its folder is called {folder}; correct the list or "
                    "rename the folder"
                )
    return given


def _images_of(own: SplitFile, index: ImageIndex) -> tuple[list[Path], list[str]]:
    """The images that a list names, and its entries without an image.

    Raises:
        UserError: An entry may mean several images.
    """
    found: list[Path] = []
    lacking: list[str] = []
    for entry in own.images:
        match = index.named(entry, own.file).images
        if len({image.parent for image in match}) > 1:
            raise UserError(
                f"{own.file}: '{entry}' may be {match[0]} or {match[1]}; put the folder before the name in the list"
            )
        found += match
        if not match:
            lacking.append(entry)
    return found, lacking


def stated_split(image: Path, claimed: Sequence[Annotation], listed: Mapping[Path, str], root: Path) -> str | None:
    """The split of an image that lists, label files, or folders state.

    Args:
        image: The image.
        claimed: What label files say about it.
        listed: Split of each image in a list.
        root: Folder of the source.

    Raises:
        ValueError: Two of them state different ones.
    """
    if image in listed:
        return listed[image]
    stated: dict[str, str] = {}
    for own in claimed:
        # one file for many images may be called instances_val.json or lie in val/
        split = own.split or (split_of_list(own.file, root) if own.image is not None else None)
        if split:
            stated.setdefault(split, own.where)
    if split := split_of(image, root):
        stated.setdefault(split, f"the folder of {image}")
    if len(stated) > 1:
        (first, where), (second, other) = list(stated.items())[:2]
        raise ValueError(f"{image} belongs to {first} by {where}, and to {second} by {other}; make them agree")
    # images in one folder may have their labels in train/ and val/
    folders = (split_of(own.file, root) for own in claimed)
    return next(iter(stated), None) or next(filter(None, folders), None)


def lone_folders(images: Iterable[Path], root: Path, by_image: Mapping[Path, str]) -> list[str]:
    """Warnings for images that are val or test only since a folder is called so, without a train folder beside it."""
    counts: Counter[Path] = Counter()
    splits: dict[Path, set[str]] = defaultdict(set)
    for image in images:
        if image not in by_image and (found := split_folder(image, root)):
            folder, split = found
            counts[folder] += 1
            splits[folder.parent].add(split)
    warnings = []
    for folder, count in sorted(counts.items()):
        named = split_of(folder / "x", root)
        if named in {"val", "test"} and "train" not in splits[folder.parent]:
            warnings.append(
                f"{counted(count, f'image is a {named} image', f'images are {named} images')} since the folder is "
                f"called {folder.name} ({folder}), and no folder beside it is called train; rename it if this is not "
                "meant"
            )
    return warnings
