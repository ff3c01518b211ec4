"""Readers of data sets with masks: pairs of image and mask with their split. Nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ultralytics.data.utils import img2label_paths

from dfssd.datasets.image_files import SUFFIXES, find_images
from dfssd.datasets.importing import read_any, usual_names
from dfssd.datasets.records import IGNORE
from dfssd.datasets.sources import pairing_key, split_of
from dfssd.datasets.yaml_files import read_entries
from dfssd.errors import UserError

MASKS_DIR = "masks"
"""Folder beside ``images``; Ultralytics' default name."""

_MASK_FOLDER = re.compile(r"masks?|annotations?|labels?", re.IGNORECASE)
_EXPECTED = "expected images/ with annotations/, masks/ or labels/, each mask named like its image"
_LACKING = "has no mask of the same name; add one (all 0 if there is no defect), or move it to a folder unlabeled/"


@dataclass
class MaskSource:
    """What a reader found.

    Attributes:
        names: Class names in id order; None if the source has none.
        pairs: (image, mask or None, split or None) of each usable image.
        problems: (image, reason naming it) of each unusable image.
        table: (256,) uint8, the class id of each stored id.
    """

    names: tuple[str, ...] | None
    pairs: list[tuple[Path, Path | None, str | None]] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    table: np.ndarray = field(default_factory=lambda: np.arange(256, dtype=np.uint8))
    _owners: dict[Path, Path] = field(default_factory=dict)

    def add(self, image: Path, masks: Sequence[Path], split: str | None, missing: str) -> None:
        """Add an image with its mask; anything but exactly one mask is a problem, ``missing`` the reason if none."""
        if len(masks) > 1:
            listed = " and ".join(mask.name for mask in masks)
            self.problems.append((image, f"{image}: has {len(masks)} masks, {listed}; keep one"))
        elif masks and (other := self._owners.setdefault(masks[0], image)) != image:
            reason = f"has the stem of {other.name}, so that both match the mask {masks[0]}; rename one"
            self.problems.append((image, f"{image}: {reason}"))
        elif not masks and split != "unlabeled":
            self.problems.append((image, f"{image}: {missing}"))
        else:
            self.pairs.append((image, masks[0] if masks else None, split))

    def fingerprint(self) -> tuple[object, ...]:
        """Changes with the files (by size and modification time), their pairing and the class names."""

        def stamp(file: Path | None) -> tuple[object, ...] | None:
            return None if file is None else (str(file), file.stat().st_size, file.stat().st_mtime_ns)

        pairs = [(stamp(image), stamp(mask), split) for image, mask, split in self.pairs]
        return self.names, pairs, self.problems, self.table.tolist()


def read_masks(root: Path, path: Path, names: Sequence[str] | None) -> MaskSource:
    """Read a folder by its data set YAML if it has one, else by its layout.

    Args:
        root: Folder, perhaps an unpacked zip file.
        path: What the user passed: the folder or the zip file; messages name it.
        names: Class names in id order; None: of the YAML, or those of the release that ``path`` is named after.

    Raises:
        UserError: There are no images or no masks, or the YAML is invalid.
    """
    return read_any(
        root,
        path,
        lambda file: read_mask_yaml(file, names, inside=root),
        lambda folder: _read_folder(folder, names or usual_names(path)),
    )


def read_mask_yaml(file: Path, names: Sequence[str] | None, inside: Path | None = None) -> MaskSource:
    """Read a semantic data set YAML, finding images and masks as Ultralytics does.

    Args:
        file: The YAML: ``path``, ``train``, ``val``, ``test``, ``unlabeled``, ``masks_dir``, ``names``,
            ``label_mapping``.
        names: Class names in id order, instead of those in the file.
        inside: The folder of an unpacked or imported data set, see :func:`dfssd.datasets.yaml_files.read_entries`.

    Raises:
        UserError: The file is not a data set YAML, or has no masks.
    """
    entries = read_entries(file, names, inside)
    folder = entries.content.get("masks_dir") or (MASKS_DIR if (entries.root / MASKS_DIR).is_dir() else None)
    if folder is None:
        raise UserError(f"{file} has no entry masks_dir:; add it: the folder with the masks, beside images/")
    source = MaskSource(entries.names, table=_table(entries.content.get("label_mapping"), file))
    for image, split in entries.images.items():
        if split == "unlabeled":
            source.pairs.append((image, None, split))
            continue
        if f"{os.sep}images{os.sep}" not in str(image):
            reason = f"is not in a folder images/, which masks_dir: {folder} replaces in paths of masks; move it there"
            source.problems.append((image, f"{image}: {reason}"))
            continue
        expected = Path(img2label_paths([str(image)], str(folder), ".png")[0])
        found = [p for suffix in (".png", *sorted(SUFFIXES)) if (p := expected.with_suffix(suffix)).exists()]
        lacking = f"has no mask {expected}; add it (all 0 if there is no defect), or list the image under unlabeled:"
        source.add(image, found[:1], split, lacking)
    return source


def _read_folder(root: Path, names: Sequence[str] | None) -> MaskSource:
    images, masks = [], defaultdict(list)
    for file in find_images(root):
        if any(_MASK_FOLDER.fullmatch(folder) for folder in file.relative_to(root).parts[:-1]):
            masks[pairing_key(file, root)].append(file)
        else:
            images.append(file)
    if not images or not masks:
        lacking = f"masks for the {len(images)} images" if images else "images"
        raise UserError(f"no {lacking} in {root}; {_EXPECTED}")
    source = MaskSource(tuple(names) if names else None)
    for image in images:
        found = masks.get(pairing_key(image, root), [])
        source.add(image, found, split_of(image, root), _LACKING)
    return source


def _table(mapping: object, file: Path) -> np.ndarray:
    """Class id of each stored id, (256,) uint8, from ``label_mapping`` of Ultralytics."""
    table = np.arange(256, dtype=np.uint8)
    if mapping is None:
        return table
    if not isinstance(mapping, dict):
        raise UserError(f"{file}: label_mapping: must give a class id or ignore_label for each stored id")
    for stored, class_id in mapping.items():
        value = IGNORE if class_id in (None, "ignore_label") else class_id
        if not isinstance(stored, int) or not isinstance(value, int) or not 0 <= value <= IGNORE:
            raise UserError(f"{file}: label_mapping: {stored}: {class_id} is not from an id to a class id; correct it")
        if 0 <= stored <= 255:  # Cityscapes maps -1, which no 8-bit mask can hold
            table[stored] = value
    return table
