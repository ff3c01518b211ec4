"""Reader of data set YAMLs with masks, which are those of Ultralytics' semantic task."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from dfssd.datasets.account import Role
from dfssd.datasets.images.pixels import SUFFIXES
from dfssd.datasets.inventory import Inventory, take_inventory
from dfssd.datasets.masks.roles import Pairing, defect_free, pair_masks
from dfssd.datasets.masks.sources import MaskSource, some, unread
from dfssd.datasets.records import IGNORE
from dfssd.datasets.yaml_files import Description, read_entries
from dfssd.errors import UserError
from dfssd.wording import are, counted

MASKS_DIR = "masks"
"""Folder beside ``images``; Ultralytics' default name."""


def read_mask_yaml(
    file: Path, names: Sequence[str] | None, inventory: Inventory | None = None, exclude: Collection[Path] = ()
) -> MaskSource:
    """Read a semantic data set YAML.

    The mask of an image is where Ultralytics looks for it: ``masks_dir`` in place of the last folder ``images``. Where
    none is there, or the path holds no such folder, it is paired by name with a file in ``masks_dir``.

    Args:
        file: The YAML: ``path``, ``train``, ``val``, ``test``, ``unlabeled``, ``masks_dir``, ``names``,
            ``label_mapping``.
        names: Class names in id order, instead of those in the file.
        inventory: The files of the unpacked or imported data set that the YAML lies in, which it must not leave; see
            :func:`dfssd.datasets.yaml_files.read_entries`. None: the files beside the listed images and their masks.
        exclude: Folders that never belong to a source, see :func:`dfssd.datasets.inventory.take_inventory`.

    Raises:
        UserError: The file is not a data set YAML, or names no masks.
    """
    entries = read_entries(file, names, None if inventory is None else inventory.root)
    folder = entries.content.get("masks_dir") or (MASKS_DIR if (entries.root / MASKS_DIR).is_dir() else None)
    if folder is None:
        raise UserError(
            f"{file} has no entry masks_dir:; add it: the folder with the masks, beside images/ (a data set with boxes "
            "needs a recipe for boxes)"
        )
    if not isinstance(folder, str):
        raise UserError(f"{file}: masks_dir: {folder} is not the name of a folder; correct it")
    source = MaskSource(entries.names, table=_table(entries.content.get("label_mapping"), file))
    masks = _Masks(entries, folder)
    if inventory is None:
        source.files, source.outside = masks.beside(tuple(entries.images), exclude)
    else:
        source.files, source.outside = tuple(inventory.paths), inventory.outside
    source.roles[file] = Role.DESCRIPTION, ""
    for text in entries.lists:
        source.roles[text] = Role.SPLIT_LIST, ""
    _pair(source, entries, masks)
    _tell_unused(source, file)
    return source


class _Masks:
    """The masks of a YAML.

    Attributes:
        folder: ``masks_dir`` as written.
        own: That folder, if it is one.
    """

    def __init__(self, entries: Description, folder: str) -> None:
        self.folder = folder
        self.own = Path(os.path.abspath(entries.root / folder))
        self._files: dict[Path, dict[str, list[Path]]] = {}

    def expected(self, image: Path) -> Path | None:
        """Where Ultralytics looks for the mask of an image; None if the image is in no folder ``images``."""
        above, found, below = str(image).rpartition(f"{os.sep}images{os.sep}")
        return Path(os.path.abspath(os.path.join(above, self.folder, below))).with_suffix(".png") if found else None

    def at(self, expected: Path) -> list[Path]:
        """The image files with the path ``expected``, whatever their suffix."""
        listed = self._files.get(expected.parent)
        if listed is None:
            listed = defaultdict(list)
            for file in _image_files(expected.parent):
                listed[file.stem].append(file)
            self._files[expected.parent] = listed
        return listed.get(expected.stem, [])

    def lacking(self, expected: Path | None) -> str:
        """What to say of an image without mask."""
        if expected is not None:
            return f"has no mask {expected}; add it (all 0 if there is no defect), or list the image under unlabeled:"
        return f"is not in a folder images/, which masks_dir: {self.folder} replaces in paths of masks; move it there"

    def beside(self, images: Collection[Path], exclude: Collection[Path]) -> tuple[tuple[Path, ...], dict[str, int]]:
        """All files in the folders of the images and of their masks, and the number of those outside, by kind."""
        wanted = {image.parent for image in images}
        expected = [self.expected(image) for image in images]
        wanted |= {place.parent for place in expected if place is not None}
        if not all(place is not None and self.at(place) for place in expected):
            wanted.add(self.own)
        tops = sorted(folder for folder in wanted if folder.is_dir() and not wanted.intersection(folder.parents))
        files: dict[Path, None] = {}
        outside: dict[str, int] = defaultdict(int)
        for top in tops:
            inventory = take_inventory(top, exclude)
            files.update(dict.fromkeys(inventory.paths))
            for kind, n in inventory.outside.items():
                outside[kind] += n
        return tuple(files), dict(outside)


def _pair(source: MaskSource, entries: Description, masks: _Masks) -> None:
    """Give each image its mask."""
    expected = {image: masks.expected(image) for image in entries.images}
    found = {image: masks.at(place) if place else [] for image, place in expected.items()}
    labeled = [image for image, split in entries.images.items() if split != "unlabeled"]
    for image in entries.images.keys() - set(labeled):
        source.roles.update(dict.fromkeys(found.pop(image), (Role.LEFT_OUT, "its image is listed as unlabeled")))
    near = _paired_by_name(source, entries, masks, found)
    refused = source.refuse_unclear({**_shared(found), **near.unclear})
    own = {image: found[image] or near.masks.get(image, []) for image in labeled}
    without = [image for image in labeled if not own[image] and image not in refused]
    clean = defect_free(without, [mask for some_masks in own.values() for mask in some_masks], entries.root)
    source.tell_clean(clean)
    for image, split in entries.images.items():
        if image not in refused:
            source.add(image, own.get(image, []), split, masks.lacking(expected[image]), clean)


def _paired_by_name(
    source: MaskSource, entries: Description, masks: _Masks, found: Mapping[Path, Sequence[Path]]
) -> Pairing:
    """Masks for the images that have none where Ultralytics looks for it, from those that no image has there."""
    taken = {mask for own in found.values() for mask in own} | entries.images.keys()
    free = [file for file in source.files if masks.own in file.parents and file.suffix.lower() in SUFFIXES]
    return pair_masks([i for i in found if not found[i]], [file for file in free if file not in taken], entries.root)


def _shared(found: Mapping[Path, Sequence[Path]]) -> dict[Path, list[Path]]:
    """The images of each mask that several images have, as ``x.jpg`` and ``x.png`` do."""
    owners: dict[Path, list[Path]] = defaultdict(list)
    for image, masks in found.items():
        for mask in masks:
            owners[mask].append(image)
    return {mask: images for mask, images in owners.items() if len(images) > 1}


def _tell_unused(source: MaskSource, file: Path) -> None:
    """Say which images and masks beside the listed ones are not listed."""
    used = {pair.image for pair in source.pairs} | {mask for pair in source.pairs for mask in pair.masks}
    used |= {image for image, _ in source.problems} | set(source.roles)
    unused = [other for other in source.files if other not in used and other.suffix.lower() in SUFFIXES]
    for other in unused:
        source.leave_out(other, f"neither listed in {file.name} nor the mask of a listed image")
    if unused:
        source.warnings.append(
            f"{counted(len(unused), 'image file')} beside the listed ones {are(len(unused))} left out, since {file} "
            f"lists neither the file nor the image of such a mask: {some(unused)}"
        )
    if warning := unread(source.files):
        source.warnings.append(warning)


def _image_files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError:
        return []


def _table(mapping: object, file: Path) -> np.ndarray:
    """Class id of each stored id, (256,) uint8, from ``label_mapping`` of Ultralytics."""
    table = np.arange(256, dtype=np.uint8)
    if mapping is None:
        return table
    if not isinstance(mapping, dict):
        raise UserError(f"{file}: label_mapping: must give a class id or ignore_label for each stored id")
    for stored, class_id in mapping.items():
        value = IGNORE if class_id in (None, "ignore_label") else class_id
        if not _is_id(stored) or not _is_id(value) or not 0 <= value <= IGNORE:
            raise UserError(f"{file}: label_mapping: {stored}: {class_id} is not from an id to a class id; correct it")
        if 0 <= stored <= 255:  # Cityscapes maps -1, which no 8-bit mask can hold
            table[stored] = value
    return table


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
