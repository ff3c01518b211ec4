"""What a source holds, and what the names of its folders say."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dfssd.datasets.account import Account
from dfssd.datasets.records import Item

_ROLE = re.compile(r"(jpeg|png)?images?|labels?|masks?|annotations?|xmls?|labels?_?txt", re.IGNORECASE)
"""Names of folders that state the kind of files, ignored when images and labels are paired."""

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test", "unlabeled": "unlabeled"}
_SPLIT_NAME = re.compile(r"(train|valid|val|test|unlabell?ed)(?:ing|idation|ation)?(?:[-_]?\d+)?", re.IGNORECASE)


@dataclass
class Source:
    """What a source holds.

    Attributes:
        items: Usable images.
        names: Class names in id order.
        problems: (file, reason) for each image or file that cannot be used, reason naming file and line.
        account: The roles of all other files.
    """

    items: list[Item]
    names: tuple[str, ...]
    problems: list[tuple[Path, str]]
    account: Account


def split_of(path: Path, root: Path) -> str | None:
    """The split that a folder between ``root`` and ``path`` names, else None."""
    found = split_folder(path, root)
    return found[1] if found else None


def split_of_list(file: Path, root: Path) -> str | None:
    """The split of a file that speaks of many images: named by its folder, or by a word of its own name."""
    return split_of(file, root) or split_named(re.split(r"[^a-z0-9]+", file.stem.lower()))


def split_folder(path: Path, root: Path) -> tuple[Path, str] | None:
    """The first folder between ``root`` and ``path`` that names a split, and that split."""
    folders = path.parts[len(root.parts) : -1]
    for number, name in enumerate(folders, 1):
        if split := split_named([name]):
            return Path(root, *folders[:number]), split
    return None


def split_named(words: Iterable[str]) -> str | None:
    """The split that the first matching word names ("train2017", "valid", "testing"), else None."""
    for word in words:
        if match := _SPLIT_NAME.fullmatch(word):
            return _SPLITS[match[1].lower().replace("unlabelled", "unlabeled")]
    return None


def pairing_key(path: Path, root: Path) -> tuple[str, ...]:
    """What an image and its label share: the path below ``root`` without suffix and folders such as ``labels``."""
    folders = path.parts[len(root.parts) : -1]
    return (*(folded(part) for part in folders if not _ROLE.fullmatch(part)), folded(path.stem))


def folded(name: str) -> str:
    """A name for comparison: letter case does not count, nor how accents are stored (macOS takes them apart)."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
