"""Steps that imports of boxes and masks share: find the source, unpack it, convert it completely or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from dfssd.datasets.account import Account, Accounted, Role
from dfssd.datasets.archives import unpack
from dfssd.datasets.cards import Card, find_card, is_card, nearest_card, read_card, ultralytics_card
from dfssd.datasets.demo import make_demo
from dfssd.datasets.download import fetch_card
from dfssd.datasets.images.files import safe_names
from dfssd.datasets.records import LabeledSet
from dfssd.errors import UserError
from dfssd.files import atomic_write, load_yaml, write_text
from dfssd.wording import counted

LISTING = "dataset.json"
"""File that describes a finished import; it is written last."""

ROWS = "items.jsonl"
"""File beside it with a line per image."""

T = TypeVar("T")
SetT = TypeVar("SetT", bound=LabeledSet[Any])

_ANY = frozenset({"", "data", "dataset", "datasets", "annotations", "labels"})
"""Names that say nothing about what is in a file or a folder."""


@dataclass(frozen=True)
class Listing:
    """Content of an imported data set: the rows of its images in ``items.jsonl``, the rest in ``dataset.json``.

    Paths below the source are written relative to it, so that a source that has been moved keeps its import.

    Attributes:
        name: Short name.
        names: Class names in id order.
        items: One row per image; its content depends on the kind of labels.
        skipped: (file, reason) of each image left out.
        account: The roles of the other files, and warnings.
        depth: Bits that the camera uses, in files with more than 8.
    """

    name: str
    names: tuple[str, ...]
    items: list[list[Any]]
    skipped: tuple[tuple[Path, str], ...]
    account: Account = field(default_factory=Account)
    depth: int = 8

    def write(self, folder: Path, root: Path | None = None) -> None:
        """Write both files to ``folder``, ``dataset.json`` last; ``root`` is the source."""
        with atomic_write(folder / ROWS) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.items)
        files = [[relative_to(own.path, root), own.role.value, own.reason] for own in self.account.files]
        content = {
            "name": self.name,
            "names": self.names,
            "images": len(self.items),
            "skipped": [[relative_to(file, root), reason] for file, reason in self.skipped],
            "files": files,
            "outside": dict(self.account.outside),
            "warnings": self.account.warnings,
            "counted": self.account.counted,
            "depth": self.depth,
        }
        # In ASCII, since names of files need not be valid text.
        write_text(folder / LISTING, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path, root: Path | None = None) -> Listing:
        """Read the files of a finished import; ``root`` is where the source is now."""
        content = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        with open(folder / ROWS, encoding="utf-8") as file:
            items = [json.loads(line) for line in file]
        account = Account(
            tuple(Accounted(below(path, root), Role(role), reason) for path, role, reason in content["files"]),
            content["outside"],
            tuple(content["warnings"]),
            content["counted"],
        )
        skipped = tuple((below(file, root), reason) for file, reason in content["skipped"])
        return cls(content["name"], tuple(content["names"]), items, skipped, account, content["depth"])


def relative_to(path: Path, root: Path | None) -> str:
    """``path`` with "/", relative to ``root`` if it lies below it."""
    if root is not None and path.parts[: len(root.parts)] == root.parts:
        return Path(*path.parts[len(root.parts) :]).as_posix()
    return path.as_posix()


def below(path: str, root: Path | None) -> Path:
    """The inverse of :func:`relative_to`."""
    return Path(path) if root is None else root / path


def resolve_source(source: str, data_dir: Path, demo: Callable[[Path], Path] = make_demo) -> Path:
    """The file or folder of ``data=source``; draws the demo or downloads the file if needed.

    Args:
        source: What the user passed.
        data_dir: Folder for demo and downloads.
        demo: Makes the demo in ``data_dir``.

    Raises:
        UserError: It does not exist, or its kind is not supported.
    """
    found = find_source(source)
    if found is None:
        return demo(data_dir)
    return fetch_card(found, data_dir) if isinstance(found, Card) else found


def find_source(source: str) -> Path | Card | None:
    """What ``data=source`` means: a file or folder, a card whose file may have to be downloaded, or None: the demo.

    Raises:
        UserError: It does not exist, or its kind is not supported.
    """
    if source == "demo":
        return None
    path = Path(source).expanduser()
    if path.exists():
        return _existing_source(path.resolve(), source)
    if path.parent == Path() and not path.suffix and (card := find_card(source)):
        return card
    if path.parent == Path() and is_yaml(path) and (theirs := ultralytics_card(source)):
        if theirs.url is None:
            raise UserError(
                f"data={source} is prepared by a script inside Ultralytics: train on it once with yolo detect train "
                f"data={source} epochs=1, then pass the folder that this fills"
            )
        return theirs
    hint = f"; did you mean data={near}?" if (near := nearest_card(path.stem)) and not path.suffix else ""
    raise UserError(f"data={source} does not exist{hint or '; pass demo, a .yaml, a folder, a .zip or a card name'}")


def _existing_source(path: Path, source: str) -> Path | Card:
    if is_yaml(path) and is_card(load_yaml(path)):
        return read_card(path)
    if path.is_file() and not is_yaml(path) and path.suffix.lower() != ".zip":
        raise UserError(f"data={source} is neither a folder nor a .zip nor a .yaml file; pass one of these")
    return path


def is_yaml(path: Path) -> bool:
    """Whether the path has the suffix of a YAML file, and is no folder."""
    return path.suffix.lower() in {".yaml", ".yml"} and not path.is_dir()


def short_name(path: Path) -> str:
    """Name of the data set in a folder or file: that of the folder, where the file is called like any other."""
    if path.is_dir() or path.stem.casefold() not in _ANY or path.suffix.lower() == ".zip":
        return path.name if path.is_dir() else path.stem
    return next((folder.name for folder in path.resolve().parents if folder.name.casefold() not in _ANY), path.stem)


def as_list(entries: str | Sequence[str]) -> list[str]:
    """One or several entries as a list."""
    return [entries] if isinstance(entries, str) else list(entries)


def usual_names(path: Path) -> tuple[str, ...] | None:
    """Class names of the release that the folder or zip file ``path`` is named after, if there is a card for it.

    Ultralytics' cards have everyday names, which a folder may have by chance: they count for the zip file only.
    """
    if card := find_card(path.name):
        return card.names
    theirs = ultralytics_card(path.name) if path.suffix.lower() == ".zip" else None
    return theirs.names if theirs and theirs.url and theirs.file == path.name else None


def digest(*parts: object) -> str:
    """Ten hexadecimal digits that change when one of ``parts`` does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def target_folder(data_dir: Path, name: str, *parts: object) -> Path:
    """Folder of a conversion whose content depends on ``parts``."""
    return data_dir / f"{safe_names([Path(name)])[0]}-{digest(*parts)}"


def is_converted(target: Path) -> bool:
    """Whether a complete conversion exists."""
    return (target / LISTING).exists()


@contextlib.contextmanager
def opened_source(path: Path, target: Path) -> Iterator[Path]:
    """The folder to read ``path`` from: itself, or a zip file unpacked next to ``target`` while the block runs."""
    if not path.is_file():
        yield path
        return
    unpacked = target.with_name(f".{target.name}.{os.getpid()}.unpacked")
    try:
        unpack(path, unpacked)
        yield unpacked
    except OSError as e:
        raise UserError(cannot_write(target, e)) from e
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


@contextlib.contextmanager
def conversion(target: Path) -> Iterator[Path]:
    """Yield a folder to fill, the listing last; it becomes ``target`` if the block succeeds, and is removed if not.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        if is_converted(target):  # another run was faster and may already be training on it
            return
        shutil.rmtree(target, ignore_errors=True)  # not left by a finished conversion
        os.replace(partial, target)
    except OSError as e:
        raise UserError(cannot_write(target, e)) from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cannot_write(target: Path, error: OSError) -> str:
    """Message for a data folder that cannot be written."""
    return f"cannot write {target}: {error.strerror or error}; free some space or choose another data_dir="


def check_problems(
    problems: Sequence[tuple[Path, str]], usable: int, where: Path | str, skip_bad: bool, root: Path | None = None
) -> list[tuple[Path, str]]:
    """Return the problems of an import, or raise one error about all of them.

    Args:
        problems: (file, reason naming the file) of each unusable image.
        usable: Number of the usable ones.
        where: What the user passed.
        skip_bad: Unusable images are left out.
        root: Folder to which ``where`` was unpacked: messages name files in it as members of ``where``.

    Raises:
        UserError: There are problems and ``skip_bad`` is not set, or no image is usable.
    """
    if root is not None and root != where:  # a zip file: name the file inside it, not its temporary copy
        problems = [(Path(where) / f.relative_to(root), r.replace(str(root), str(where))) for f, r in problems]
    if problems and not skip_bad:
        shown = "; ".join(reason for _, reason in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        listed = " (check with skip_bad=true lists all)" if more else ""
        raise UserError(
            f"{counted(len(problems), 'problem')} ({counted(usable, 'image is', 'images are')} usable): {shown}{more}; "
            f"repair or remove these files, or pass skip_bad=true to leave them out{listed}"
        )
    if not usable:
        raise UserError(f"no usable image in {where}: {problems[0][1] if problems else 'it is empty'}")
    return list(problems)


def used_once(count: int, data: str) -> str:
    """The warning that so many images of ``unlabeled=`` are images of the data set ``data``, too."""
    return (
        f"{counted(count, 'image of unlabeled= is an image', 'images of unlabeled= are images')} of {data} already, "
        "used once"
    )


def with_more_items(dataset: SetT, more: LabeledSet[Any]) -> SetT:
    """The data set with the images of another one that it does not have already, and the account of both."""
    known = {os.path.realpath(item.source or item.image) for item in dataset.items}
    added = tuple(item for item in more.items if os.path.realpath(item.source or item.image) not in known)
    account = dataset.account.merged(
        more.account,
        {item.source or item.image for item in dataset.items},
        {item.source or item.image for item in added},
    )
    twice = len(more.items) - len(added)
    if twice:
        account = account.warned([used_once(twice, dataset.name)])
    return replace(
        dataset,
        items=(*dataset.items, *added),
        skipped=(*dataset.skipped, *more.skipped),
        account=replace(account, counted=account.counted - twice),
    )
