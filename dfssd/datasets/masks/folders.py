"""Reader of folders with masks: which image has which mask, and which part it belongs to."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfssd.datasets.account import Role
from dfssd.datasets.annotations import BrokenFile, ClassFile, Found, OtherFile
from dfssd.datasets.class_names import NameList
from dfssd.datasets.given_splits import lone_folders
from dfssd.datasets.images.pixels import SUFFIXES
from dfssd.datasets.inventory import Inventory
from dfssd.datasets.masks.descriptions import read_mask_yaml
from dfssd.datasets.masks.files import read_mask
from dfssd.datasets.masks.lists import GivenParts, agreed_names, read_class_names, read_parts
from dfssd.datasets.masks.roles import Pairing, defect_free, sort_files
from dfssd.datasets.masks.sources import MaskSource, some, unread
from dfssd.datasets.records import IGNORE
from dfssd.datasets.sources import split_of
from dfssd.datasets.yaml_files import find_description
from dfssd.errors import UserError
from dfssd.wording import counted

_EXPECTED = "expected images/ with annotations/, masks/ or labels/, each mask named like its image"
_LACKING = "has no mask of the same name; add one (all 0 if there is no defect), or move it to a folder unlabeled/"
_ALONE = "a mask without an image of the same name; add the image, or remove the mask"
_LABELS = {".txt", ".xml", ".json"}


def read_masks(inventory: Inventory, names: Sequence[str] | None, usual: Sequence[str] | None) -> MaskSource:
    """Read a folder by its data set YAML if it has one, else by its layout.

    Args:
        inventory: The files of the folder, perhaps of an unpacked zip file.
        names: Class names in id order; None: of the YAML, or of lists of classes.
        usual: Names of the release that the folder is named after, if there is one.

    Raises:
        UserError: There are no images or no masks, the YAML or a list is invalid, or two of them disagree.
    """
    file, others = find_description(inventory)
    if file is not None:
        source = read_mask_yaml(file, names, inventory)
        _compare_lists(source, file, inventory, others)
    else:
        source = _read_folder(inventory, others, names, usual)
    for other in others:
        if isinstance(other, BrokenFile):
            source.problems.append((other.file, f"{other.file}: {other.problem}"))
        elif isinstance(other, OtherFile):
            source.leave_out(other.file, other.reason)
    return source


def _compare_lists(source: MaskSource, file: Path, inventory: Inventory, others: Sequence[Found]) -> None:
    """Warn of lists of classes beside the YAML ``file`` that say something else."""
    lists = [NameList(other.names, other.file) for other in others if isinstance(other, ClassFile)]
    for text in inventory.paths:
        try:
            lists += [own] if (own := read_class_names(text)) else []
        except UserError as e:
            source.leave_out(text, f"{file.name} counts ({str(e).removeprefix(f'{text}: ')})")
    for own in lists:
        source.roles[Path(own.origin)] = Role.CLASS_LIST, ""
        if source.names is not None and any(a != b for a, b in zip(source.names, own.names)):
            source.warnings.append(f"{own.origin} lists other class names than {file}, whose names count")


def _read_folder(
    inventory: Inventory, others: Sequence[Found], names: Sequence[str] | None, usual: Sequence[str] | None
) -> MaskSource:
    root = inventory.root
    texts = [file for file in inventory.paths if file.suffix.lower() not in SUFFIXES]
    found, _ = sort_files([file for file in inventory.paths if file.suffix.lower() in SUFFIXES])
    masks = found.pairing.masks
    if not found.images or not (masks or found.pairing.unclear):
        raise UserError(_nothing(root, found.images, found.pairing.alone, texts))
    source = MaskSource(None, files=tuple(inventory.paths), outside=inventory.outside)
    source.names = _names(texts, others, names, usual, source)
    parts = _parts(found.images, texts, root, source)
    _add_pairs(source, found.images, found.pairing, parts)
    for mask in found.pairing.alone:
        source.problems.append((mask, f"{mask}: {_ALONE}"))
    for file in found.shown:
        source.leave_out(file, "a picture of a mask, or instances instead of classes")
    if warning := unread(texts):
        source.warnings.append(warning)
    return source


def _add_pairs(source: MaskSource, images: Sequence[Path], pairing: Pairing, parts: GivenParts) -> None:
    """Add each image with its masks and part, unless that is unclear or no list names it."""
    masks = pairing.masks
    out = source.refuse_unclear(pairing.unclear)
    out.update(_leave_out_unlisted(images, parts, source))
    labeled = [image for image in images if image not in out and parts.part.get(image) != "unlabeled"]
    paired = [mask for own in masks.values() for mask in own]
    clean = defect_free([image for image in labeled if not masks.get(image)], paired, parts.root)
    source.tell_clean(clean)
    if clean:
        _take_255(source, paired)
    for image in images:
        own = masks.get(image, [])
        if image in out:
            source.roles.update(dict.fromkeys(own, (Role.LEFT_OUT, "its image is left out")))
        else:
            source.add(image, own, parts.part.get(image), _LACKING, clean)


def _leave_out_unlisted(images: Sequence[Path], parts: GivenParts, source: MaskSource) -> list[Path]:
    """Leave out the images that no list names, and say so."""
    unlisted = [image for image in images if parts.unlisted(image)]
    for image in unlisted:
        source.leave_out(image, "no list of images names it")
    if unlisted:
        source.warnings.append(
            f"{counted(len(unlisted), 'image is', 'images are')} left out, since no list, such as {parts.used[0]}, "
            f"names {'it' if len(unlisted) == 1 else 'them'}: {some(unlisted)}"
        )
    return unlisted


def _take_255(source: MaskSource, masks: Sequence[Path]) -> None:
    """In the layout of MVTec AD defects have the id 255, which otherwise means ignored."""
    ids: set[int] = set()
    for mask in masks:
        with contextlib.suppress(UserError):  # it is reported later
            ids.update(np.unique(read_mask(mask)).tolist())
    if ids <= {0, IGNORE}:
        source.table[IGNORE] = 1
        source.warnings.append(f"the id {IGNORE} of the masks is taken for defects, as in MVTec AD")


def _nothing(root: Path, images: Sequence[Path], masks: Sequence[Path], texts: Sequence[Path]) -> str:
    """What to say of a folder without pairs."""
    if not images:
        return f"no images in {root}; {_EXPECTED}"
    if masks:
        return (
            f"none of {counted(len(masks), 'mask')} in {root} belongs to an image: {masks[0]} has none of the same "
            f"name, {images[0]} no mask; {_EXPECTED}"
        )
    stems = {image.stem.casefold() for image in images}
    boxes = [file for file in texts if file.suffix.lower() in _LABELS and file.stem.casefold() in stems]
    boxes += [file for file in texts if file.name.endswith("coco.json")]
    if boxes:
        return (
            f"no masks for {counted(len(images), 'image')} in {root}, but labels of boxes such as {boxes[0]}; "
            "recipe=mffmetal trains on masks: add them, or choose a recipe for boxes"
        )
    return f"no masks for {counted(len(images), 'image')} in {root}; {_EXPECTED}"


def _names(
    texts: Sequence[Path],
    others: Sequence[Found],
    names: Sequence[str] | None,
    usual: Sequence[str] | None,
    source: MaskSource,
) -> tuple[str, ...] | None:
    """The class names: those that were passed, else those of all lists, which must agree."""
    lists = [NameList(other.names, other.file) for other in others if isinstance(other, ClassFile)]
    source.roles.update({own.origin: (Role.CLASS_LIST, "") for own in lists if isinstance(own.origin, Path)})
    for file in texts:
        try:
            own = read_class_names(file)
        except UserError as e:
            if names is None:
                raise
            source.leave_out(file, f"names= counts ({str(e).removeprefix(f'{file}: ')})")
            continue
        if own is not None:
            source.roles[file] = Role.CLASS_LIST, ""
            lists.append(own)
    if names is not None:
        return tuple(names)
    if usual is not None:
        lists.append(NameList(tuple(usual), "the card of this data set"))
    return agreed_names(lists)


def _parts(images: Sequence[Path], texts: Sequence[Path], root: Path, source: MaskSource) -> GivenParts:
    """The part of each image: of a list that names it, or of its folder; both must agree."""
    given = read_parts([file for file in texts if file not in source.roles], images, root)
    for file in given.used:
        source.roles[file] = Role.SPLIT_LIST, ""
    source.warnings += given.warnings
    by_folder = {image: part for image in images if (part := split_of(image, root))}
    if len(by_folder) == len(images) and len(parts := set(by_folder.values())) == 1 and parts < {"val", "test"}:
        (part,) = parts
        source.warnings.append(
            f"all images lie in a folder called {part}, which is not taken for the {part} part, since nothing would be "
            "left to train on"
        )
        by_folder = {}
    for image, part in by_folder.items():
        if given.part.setdefault(image, part) != part:
            raise UserError(
                f"{image} lies in a folder called {part}, but {given.lists[image]} lists it for {given.part[image]}; "
                "move it, or correct the list"
            )
    source.warnings += lone_folders(by_folder, root, dict.fromkeys(given.lists, ""))
    return given
