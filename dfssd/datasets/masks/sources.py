"""What the readers of masks find: images with their masks, and the role of every other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dfssd.datasets import archives
from dfssd.datasets.account import Account, Accounted, Role
from dfssd.datasets.images.pixels import NOT_READ, SUFFIXES, UNREAD_SUFFIXES
from dfssd.wording import counted, short_paths

_REASONS = {
    (".xml", ".json"): "labels of boxes or outlines, which are not read as masks",
    (".txt", ".csv"): "neither class names nor a list of images",
    (".npy", ".npz", ".mat"): "an array; save masks as PNG",
    tuple(archives.SUFFIXES): archives.INSIDE,
}


@dataclass(frozen=True)
class Pair:
    """An image and what belongs to it.

    Attributes:
        image: Its file.
        masks: The files of its masks, of which several have to hold the same ids; empty: nothing is known, or, if
            ``clean``, the image shows no defect.
        split: "train", "val", "test" or "unlabeled" if the source says so, else None.
        clean: Whether the image is known to show no defect.
    """

    image: Path
    masks: tuple[Path, ...]
    split: str | None
    clean: bool = False

    @property
    def known(self) -> bool:
        """Whether the classes of the pixels are known."""
        return self.clean or bool(self.masks)


@dataclass
class MaskSource:
    """What a reader found.

    Attributes:
        names: Class names in id order; None if the source has none.
        pairs: The usable images.
        problems: (file, reason naming it) of each unusable image, of each mask without image.
        table: (256,) uint8, the class id of each stored id.
        files: All files of the source.
        outside: Number of files that never belong to a source, by kind.
        roles: Role and, if left out, reason of files that are neither images nor masks of ``pairs``.
        warnings: Complete sentences without a full stop.
    """

    names: tuple[str, ...] | None
    pairs: list[Pair] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    table: np.ndarray = field(default_factory=lambda: np.arange(256, dtype=np.uint8))
    files: tuple[Path, ...] = ()
    outside: Mapping[str, int] = field(default_factory=dict)
    roles: dict[Path, tuple[Role, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(
        self, image: Path, masks: Sequence[Path], split: str | None, missing: str, clean: Collection[Path] = ()
    ) -> None:
        """Add an image; one without mask is a problem, ``missing`` the reason, unless it is unlabeled or ``clean``."""
        if masks or split == "unlabeled" or image in clean:
            self.pairs.append(Pair(image, tuple(masks), split, image in clean))
        else:
            self.problems.append((image, f"{image}: {missing}"))

    def tell_clean(self, images: Collection[Path]) -> None:
        """Say which images show no defect by the name of their folder."""
        if images:
            folders = ", ".join(sorted({image.parent.name for image in images}))
            self.warnings.append(
                f"{counted(len(images), 'image without masks shows', 'images without masks show')} no defect, since "
                f"the folder is called {folders} and the masks of the others lie in ground_truth"
            )

    def refuse_unclear(self, unclear: Mapping[Path, Sequence[Path]]) -> set[Path]:
        """Make problems of the images of which several fit one mask, given these; return them."""
        refused: set[Path] = set()
        for mask, images in unclear.items():
            for image in images:
                other = next(one for one in images if one != image)
                if image not in refused:
                    what = f"has the stem of {_apart(other, image)}, so that both match the mask {mask}; rename one"
                    self.problems.append((image, f"{image}: {what}"))
            refused.update(images)
            self.roles[mask] = Role.LEFT_OUT, f"fits {counted(len(images), 'image')}"
        return refused

    def leave_out(self, file: Path, reason: str) -> None:
        """Note why a file has no part in the data."""
        self.roles[file] = Role.LEFT_OUT, reason

    def account(self, usable: Collection[Path], problems: Iterable[tuple[Path, str]]) -> Account:
        """The roles of all files.

        Args:
            usable: The images that became images of the data set.
            problems: (file, reason naming it) of all others, and of masks without image.
        """
        why = {file: reason.removeprefix(f"{file}: ") for file, reason in problems}
        masks = {}
        for pair in self.pairs:
            for mask in pair.masks:
                masks[mask] = (Role.MASK, "") if pair.image in usable else (Role.LEFT_OUT, "its image is left out")
        files = []
        for file in sorted({*self.files, *masks, *usable, *why, *self.roles}, key=lambda path: path.parts):
            if file in usable:
                continue
            role, reason = masks.get(file) or self.roles.get(file) or (Role.LEFT_OUT, reason_for(file))
            if file in why and role not in {Role.SPLIT_LIST, Role.MASK}:
                role, reason = Role.LEFT_OUT, why[file]
            files.append(Accounted(file, role, reason))
        return Account(tuple(files), dict(self.outside), tuple(self.warnings), len(files) + len(usable))


def reason_for(file: Path) -> str:
    """Why a file has no part in a data set with masks, by its suffix."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return "not listed"
    if suffix in UNREAD_SUFFIXES:
        return NOT_READ
    if suffix == ".txt" and any(folder.name.casefold() == "imagesets" for folder in file.parents):
        return "a list of images for another task"
    other = f"a file of another kind ({suffix or 'without suffix'})"
    return next((reason for suffixes, reason in _REASONS.items() if suffix in suffixes), other)


def some(files: Sequence[Path]) -> str:
    """The first three files for a message, by name."""
    shown = ", ".join(short_paths(files[:3], 0))
    return shown + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def unread(files: Iterable[Path]) -> str | None:
    """A warning about images of types that are not read, if there are any."""
    kinds = Counter(suffix for file in files if (suffix := file.suffix.lower()) in UNREAD_SUFFIXES)
    if not kinds:
        return None
    listed = ", ".join(f"{n} {suffix}" for suffix, n in sorted(kinds.items()))
    return f"images of kinds that are not read are left out ({listed}); convert them to .png"


def _apart(file: Path, other: Path) -> Path | str:
    """A file by its name, or by its path where the names are the same."""
    return file if file.name == other.name else file.name
