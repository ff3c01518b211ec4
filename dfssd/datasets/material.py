"""Collecting the files of a source, before anything is decided: from a folder, or as a data set YAML lists them."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfssd.datasets import archives
from dfssd.datasets.account import Accounted, Role
from dfssd.datasets.annotations import Found
from dfssd.datasets.images.files import map_files
from dfssd.datasets.images.pixels import NOT_READ, SUFFIXES, UNREAD_SUFFIXES
from dfssd.datasets.inventory import Inventory, list_folder, take_inventory
from dfssd.datasets.readers import is_read, read_file
from dfssd.datasets.readers.text_files import is_class_list
from dfssd.datasets.yaml_files import Description, find_description, labels_folder, listed_images, read_entries
from dfssd.errors import UserError

EXPECTED = (
    "expected images with labels of YOLO (.txt), Pascal VOC or CVAT (.xml), COCO, LabelMe or Label Studio (.json), or "
    "a .csv table of boxes"
)


@dataclass
class Material:
    """The files of a source.

    Attributes:
        root: Folder of the source; images and labels are paired by their paths below it.
        images: The image files.
        texts: Files that may hold labels, class names or splits.
        found: What other files are, where that is known without reading them again.
        described: Split of each image that a data set YAML lists: no others take part; None: there is no YAML.
        description: That YAML.
        chosen: The user has named that YAML, so that it need not agree with others beside it.
        names: Its class names.
        keypoints: Number of keypoints and of values for each (``kpt_shape``), if its labels are those of a pose set.
        files: Roles that are certain already.
        outside: Number of files that never belong to a source, by kind.
        warnings: What a user should know.
    """

    root: Path
    images: list[Path] = field(default_factory=list)
    texts: list[Path] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    described: dict[Path, str] | None = None
    description: Path | None = None
    chosen: bool = False
    names: tuple[str, ...] | None = None
    keypoints: tuple[int, int] | None = None
    files: list[Accounted] = field(default_factory=list)
    outside: Mapping[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """Number of all files."""
        description = int(self.description is not None)
        return len(self.images) + len(self.texts) + len(self.found) + len(self.files) + description

    def read(self) -> list[Found]:
        """What the texts and the other files are."""
        return [*self.found, *map_files(lambda file: read_file(file, self.keypoints), self.texts, "Reading labels")]


def of_folder(root: Path, names: Sequence[str] | None, exclude: Collection[Path]) -> Material:
    """The files of a folder; a data set YAML in it decides which of them take part.

    Args:
        root: The folder.
        names: Class names in id order, instead of those of the YAML.
        exclude: Folders that never belong to a source.

    Raises:
        UserError: The folder cannot be read, or it has several data set YAMLs that disagree.
    """
    inventory = take_inventory(root, exclude)
    file, others = find_description(inventory)
    if file is None:
        return _sorted(inventory, others)
    return _listed(read_entries(file, names, root), inventory, others)


def of_yaml(file: Path, names: Sequence[str] | None) -> Material:
    """The files that a data set YAML lists, and the labels beside them; arguments as above.

    Raises:
        UserError: The file is no data set YAML, or an entry does not exist.
    """
    material = _listed(read_entries(file, names), None, [])
    material.chosen = True
    return material


def of_images(entries: Sequence[str], exclude: Collection[Path] = ()) -> Material:
    """Images without labels, from folders, .txt lists, and patterns of ``unlabeled=``.

    Args:
        entries: The folders and lists; or patterns such as ``photos/*.JPG``, of whose files the images count.
        exclude: Folders that never belong to a source.

    Raises:
        UserError: An entry does not exist or contains no image.
    """
    images: dict[Path, str] = {}
    material = Material(Path())
    outside: Counter[str] = Counter()
    for entry in entries:
        path = Path(os.path.abspath(Path(entry).expanduser()))
        if os.path.isdir(path):
            inventory = take_inventory(path, exclude)
            outside += Counter(inventory.outside)
            found = [file for file in inventory.paths if file.suffix.lower() in SUFFIXES]
            others = (file for file in inventory.paths if file.suffix.lower() not in SUFFIXES)
            material.files += [Accounted(file, Role.LEFT_OUT, _beside_unlabeled(file)) for file in others]
        elif glob.has_magic(entry) and not path.exists():
            files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if os.path.isfile(name))
            found = [file for file in files if file.suffix.lower() in SUFFIXES]
            others = (file for file in files if file.suffix.lower() not in SUFFIXES)
            material.files += [Accounted(file, Role.LEFT_OUT, _beside_unlabeled(file)) for file in others]
        else:
            found = listed_images(path, f"unlabeled={entry}")
            if path.suffix.lower() not in SUFFIXES:
                material.files.append(Accounted(path, Role.SPLIT_LIST))
        if not found:
            raise UserError(f"unlabeled={entry} contains no image; expected {', '.join(sorted(SUFFIXES))}")
        images.update(dict.fromkeys(found, "unlabeled"))
    material.root = Path(os.path.commonpath([image.parent for image in images]))
    material.images, material.described, material.outside = list(images), images, outside
    return material


def _beside_unlabeled(file: Path) -> str:
    return (
        "labels and lists in unlabeled= are not read" if is_read(file.suffix.lower()) else _unread(file.suffix.lower())
    )


def _sorted(inventory: Inventory, others: Iterable[Found]) -> Material:
    material = Material(inventory.root, found=list(others), outside=inventory.outside)
    known = {found.file for found in material.found}
    for path in inventory.paths:
        if path not in known:
            _sort_in(material, path)
    if not material.images:
        packed = [file.path for file in material.files if file.path.suffix.lower() in archives.SUFFIXES]
        hint = f"; {packed[0]} is an archive: pass data={packed[0]}, or unpack it" if packed else ""
        raise UserError(f"no images in {inventory.root}{hint or f'; {EXPECTED}'}")
    return material


def _sort_in(material: Material, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        material.images.append(path)
    elif is_read(suffix):
        material.texts.append(path)
    else:
        material.files.append(Accounted(path, Role.LEFT_OUT, _unread(suffix)))


def _unread(suffix: str) -> str:
    if suffix in UNREAD_SUFFIXES:
        return NOT_READ
    if suffix in archives.SUFFIXES:
        return archives.INSIDE
    return f"a file of another kind ({suffix or 'without suffix'})"


def _listed(description: Description, inventory: Inventory | None, others: Iterable[Found]) -> Material:
    """The material of a data set YAML; with an inventory every file of it gets a role."""
    listed = description.images
    if not listed:
        raise UserError(f"{description.file}: its entries contain no images; correct path:, train: and val:")
    places = {image.parent for image in listed}
    beside = sorted(places | {labels_folder(place) for place in places}, key=lambda path: path.parts)
    if inventory is None:
        paths = [path for place in beside for path in list_folder(place)]
        paths += [path for path in list_folder(description.file.parent) if is_class_list(path)]
        root = Path(os.path.commonpath([path.parent for path in [*listed, *paths, description.file]]))
    else:
        paths, root = inventory.paths, inventory.root
    material = Material(
        root,
        images=list(listed),
        described=dict(listed),
        description=description.file,
        names=description.names,
        keypoints=description.keypoints,
        found=[found for found in others if found.file != description.file],
        outside=inventory.outside if inventory is not None else {},
        warnings=list(description.warnings),
    )
    known = {*listed, description.file, *(found.file for found in material.found)}
    near = set(beside)
    for path in dict.fromkeys([*description.lists, *paths]):
        if path in known:
            continue
        known.add(path)
        if path in description.lists:
            material.files.append(Accounted(path, Role.SPLIT_LIST))
        elif path.parent in near or path.suffix.lower() in SUFFIXES or is_class_list(path):
            _sort_in(material, path)
        else:
            kind = f"not beside the images that {description.file.name} lists"
            material.files.append(Accounted(path, Role.LEFT_OUT, kind))
    return material
