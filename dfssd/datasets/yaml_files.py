"""Data set YAMLs of Ultralytics, and the entry ``unlabeled:`` that we add to them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfssd.datasets.annotations import BrokenFile, ClassFile, Found, OtherFile
from dfssd.datasets.class_names import yaml_names
from dfssd.datasets.images.pixels import SUFFIXES
from dfssd.datasets.inventory import Inventory, take_inventory
from dfssd.errors import UserError
from dfssd.files import load_yaml

_DEPTH = 2
"""A data set YAML is looked for in the folder itself and in those directly in it. One in a deeper folder counts if that
fails and all images lie in that folder: others belong to tools (``yolov5/data/coco.yaml``)."""

_DESCRIBES = re.compile(r"^\s*(train|names|nc)\s*:", re.MULTILINE)
"""A text that is meant to be a data set YAML, even if it cannot be parsed."""


@dataclass(frozen=True)
class Description:
    """What a data set YAML lists.

    Attributes:
        file: The YAML.
        names: Class names in id order.
        images: Split of each image.
        root: What its paths are relative to.
        content: The parsed file.
        lists: The lists of images that it refers to.
        warnings: What a user should know.
        keypoints: ``kpt_shape``: number of keypoints, and of values for each; None: the labels have none.
    """

    file: Path
    names: tuple[str, ...]
    images: dict[Path, str]
    root: Path
    content: dict[str, Any]
    lists: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    keypoints: tuple[int, int] | None = None


def read_entries(file: Path, names: Sequence[str] | None, inside: Path | None = None) -> Description:
    """Read what a data set YAML lists, with any kind of labels, resolving paths as Ultralytics does.

    An image that ``unlabeled:`` and another entry list belongs to the other entry: the folder of all photos may be
    given there.

    Args:
        file: The YAML: ``path``, ``train``, ``val``, ``test``, ``unlabeled`` (folder, list of folders, .txt list) and
            ``names`` or ``nc``.
        names: Class names in id order, instead of those in the file.
        inside: The folder of an unpacked or imported data set: paths that do not exist as written are looked for
            here, since such files often carry the paths of another machine.

    Raises:
        UserError: The file is not a data set YAML, an entry does not exist, or an image is in two splits.
    """
    content = load_yaml(file)
    if not isinstance(content, dict) or not content.get("train"):
        raise UserError(f"{file} has no entry train:; a data set YAML needs train:, names: and usually val:")
    if "validation" in content and "val" not in content:
        content["val"] = content.pop("validation")
    found_names = tuple(names) if names else yaml_names(content, file)
    root = _root(content, file, inside)
    images: dict[Path, str] = {}
    lists: list[Path] = []
    warnings = []
    for split in ("train", "val", "test", "unlabeled"):
        if split == "test" and (gone := _gone(content.get(split), root)):
            warnings.append(f"{file}: test: {gone} does not exist, so there is no given test part")  # as Ultralytics
            continue
        for image in _images(content.get(split), root, file, split, inside, lists):
            other = images.setdefault(image, split)
            if other != split != "unlabeled":
                raise UserError(f"{file}: {image} is in both {other}: and {split}:; keep it in one of them")
    return Description(
        file, found_names, images, root, content, tuple(lists), tuple(warnings), _keypoints(content, file)
    )


def find_description(inventory: Inventory) -> tuple[Path | None, list[Found]]:
    """The data set YAML of a folder, and what its other YAMLs are.

    Raises:
        UserError: Two YAMLs describe the data differently, or one that looks like a description cannot be read.
    """
    described: list[tuple[Path, Any]] = []
    deep: list[tuple[Path, Any]] = []
    others: list[Found] = []
    for path in inventory.paths:
        if path.suffix.lower() not in {".yaml", ".yml"}:
            continue
        try:
            content = load_yaml(path)
        except UserError as e:
            others.append(_unreadable(path, e))
            continue
        if isinstance(content, dict) and "train" in content and ("names" in content or "nc" in content):
            near = len(path.parts) - len(inventory.root.parts) <= _DEPTH
            (described if near else deep).append((path, content))
        else:
            others.append(_other_yaml(path, content))
    if not described:
        common = _folder_of_images(inventory)
        described = [own for own in deep if own[0].parent in (common, *common.parents)]
    others += [_other_yaml(*own) for own in deep if own not in described]
    if not described:
        return None, others
    described.sort(key=lambda own: (len(own[0].parts), own[0].parts))
    file, content = described[0]
    for other, its in described[1:]:
        if difference := _difference(content, its, other.parent == file.parent):
            raise UserError(
                f"{file} and {other} describe the data differently ({difference}); pass data= with one of them"
            )
        others.append(OtherFile(other, f"says the same as {file}"))
    return file, others


def _folder_of_images(inventory: Inventory) -> Path:
    """The deepest folder that all images lie in; that of the inventory if there are none."""
    folders = {path.parent for path in inventory.paths if path.suffix.lower() in SUFFIXES}
    return Path(os.path.commonpath(folders)) if folders else inventory.root


def _unreadable(path: Path, error: UserError) -> Found:
    """A YAML that cannot be parsed: a problem if it was meant to describe data."""
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        text = "names:"
    problem = str(error).removeprefix(f"{path}: ").removeprefix(f"{path}:")
    return BrokenFile(path, problem) if _DESCRIBES.search(text) else OtherFile(path, "a YAML that cannot be read")


def _other_yaml(path: Path, content: Any) -> Found:
    """A YAML that describes no images: perhaps a list of class names."""
    if isinstance(content, dict) and isinstance(content.get("names"), (list, dict)) and "train" not in content:
        try:
            return ClassFile(path, yaml_names(content, path))
        except UserError as e:
            return BrokenFile(path, str(e).removeprefix(f"{path}: "))
    return OtherFile(path, "a YAML that does not describe this folder")


def _difference(one: dict[str, Any], other: dict[str, Any], same_folder: bool) -> str:
    """The first entry in which two descriptions differ; empty if they say the same."""
    for key in ("names", "nc", "path", "train", "val", "test", "unlabeled", "kpt_shape", "masks_dir", "label_mapping"):
        a, b = _comparable(one.get(key)), _comparable(other.get(key))
        if a != b and not (key == "nc" and None in (a, b)):
            return f"{key}:"
    return "" if same_folder else "paths"


def _comparable(value: Any) -> Any:
    """Names as a list and as a mapping from id to name mean the same."""
    if isinstance(value, dict):
        return [value[key] for key in sorted(value, key=lambda key: str(key).zfill(9))]
    return value


def _keypoints(content: dict[str, Any], file: Path) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(n, int) and 0 < n < 10_000 for n in shape):
        raise UserError(f"{file}: kpt_shape: must be [number of keypoints, 2 or 3], not {shape}; correct it")
    return shape[0], shape[1]


def _root(content: dict[str, Any], file: Path, inside: Path | None) -> Path:
    root = Path(str(content.get("path") or file.parent)).expanduser()
    if inside is not None:
        return root if root.is_absolute() and inside in root.parents else file.parent
    if not root.is_absolute():
        # Ultralytics takes it from the working directory, then from its own folder of data sets; we try the
        # folder of the YAML first, which is usually meant and does not depend on the working directory.
        for folder in (file.parent, Path()):
            if os.path.exists(folder / root):
                return Path(os.path.abspath(folder / root))
        theirs = _ultralytics_datasets() / root
        return Path(os.path.abspath(theirs if os.path.exists(theirs) else file.parent / root))
    return Path(os.path.abspath(root))


def _ultralytics_datasets() -> Path:
    from ultralytics.utils import DATASETS_DIR  # late, since importing it takes seconds and most paths are found before

    return Path(DATASETS_DIR)


def _images(value: object, root: Path, file: Path, split: str, inside: Path | None, lists: list[Path]) -> list[Path]:
    """Images of an entry; the .txt lists that it names are added to ``lists``."""
    if not value:
        return []
    images = []
    for entry in value if isinstance(value, list) else [value]:
        words = str(entry)
        path = _place(root, words)
        if inside is not None and inside not in [path, *path.parents]:
            raise UserError(f"{file}: {split}: {entry} points outside of the data set; correct the path")
        images += listed_images(path, f"{file}: {split}: {entry}")
        if os.path.isfile(path) and path.suffix.lower() not in SUFFIXES:
            lists.append(path)
    return list(dict.fromkeys(images))


def _gone(value: object, root: Path) -> str:
    """The single entry that does not exist; empty if it does."""
    return str(value) if isinstance(value, str) and value and not os.path.exists(_place(root, value)) else ""


def _place(root: Path, words: str) -> Path:
    """The file or folder of an entry: as written, with slashes for backslashes, or without a leading ``../``."""
    options = [words, words.replace("\\", "/")]
    if words.startswith("../"):  # as in exports of Roboflow
        options.append(words[3:])
    paths = [Path(os.path.abspath(root / option)) for option in options]
    return next((path for path in paths if os.path.exists(path)), paths[-1])


def listed_images(path: Path, what: str) -> list[Path]:
    """Images of a folder, a .txt list (a path per line, ``./`` = beside the list), or a single image.

    Args:
        path: The folder, list or image.
        what: How the user has named it, for the message.

    Raises:
        UserError: It does not exist, is none of these, or lists an image that does not exist.
    """
    if os.path.isdir(path):
        return [file for file in take_inventory(path).paths if file.suffix.lower() in SUFFIXES]
    if not os.path.isfile(path):
        raise UserError(f"{what} does not exist ({path}); correct the path")
    if path.suffix.lower() in SUFFIXES:
        return [path]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{what} is neither a folder, an image nor a text list in UTF-8; correct the path") from e
    images = []
    for number, line in enumerate(lines, 1):
        if line := line.strip():
            image = _listed_image(path.parent, line)
            if image is None:
                raise UserError(f"{path}:{number}: image {line} does not exist; correct the list")
            images.append(image)  # links are not resolved: labels lie beside the link
    return images


def _listed_image(folder: Path, line: str) -> Path | None:
    """The image of a line of a list, written on any system; None if it does not exist."""
    for words in (line, line.replace("\\", "/")):
        image = Path(os.path.abspath(folder / words))
        if os.path.isfile(image):  # False for what is too long, or no name at all
            return image
    return None


def labels_folder(images: Path) -> Path:
    """Where Ultralytics looks for the labels of a folder of images: the last ``images`` in its path is ``labels``."""
    head, found, tail = f"{images}{os.sep}".rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{head}{os.sep}labels{os.sep}{tail}") if found else images
