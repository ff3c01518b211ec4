"""A loaded data set: images, their boxes or masks where known, and class names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from dfssd.datasets.account import Account
from dfssd.errors import UserError

SPLITS = ("train", "val", "test", "unlabeled")

IGNORE = 255
"""Id of mask pixels of unknown class, which losses and metrics ignore."""


@dataclass(frozen=True)
class Item:
    """One image and what is known about it.

    Attributes:
        image: Absolute path. Ultralytics finds the label file by swapping the last ``images`` folder for ``labels``.
        boxes: (n, 5) float32 rows [class id, x, y, w, h], xywh center format, 0-1; (0, 5) = known to be free of
            defects; None = nothing known (unlabeled).
        split: "train", "val", "test" or "unlabeled" if the source says so, else None.
        source: The file of the user that ``image`` was made from or is linked to; in a zip file ``<zip>/<member>``;
            None: ``image`` itself.
        size: (width, height) [px] as training reads ``image``; None where it has not been measured.
    """

    image: Path
    boxes: np.ndarray | None
    split: str | None
    source: Path | None = None
    size: tuple[int, int] | None = None

    @property
    def known(self) -> bool:
        """Whether the boxes are known."""
        return self.boxes is not None

    @property
    def classes(self) -> Counter[int]:
        """Boxes per class id; empty for an unlabeled image."""
        return Counter() if self.boxes is None else Counter(self.boxes[:, 0].astype(int).tolist())


@dataclass(frozen=True)
class MaskItem:
    """One image and what is known about its pixels.

    Attributes:
        image: Absolute path.
        mask: Absolute path of a PNG of the size of the image, class ids in one 8-bit channel; None = nothing known.
        split: "train", "val", "test" or "unlabeled" if the source says so, else None.
        pixels: Number of pixels of each class id, ignored ones left out; empty without a mask.
        source: As of :class:`Item`.
        size: As of :class:`Item`.
    """

    image: Path
    mask: Path | None
    split: str | None
    pixels: tuple[int, ...] = ()
    source: Path | None = None
    size: tuple[int, int] | None = None

    @property
    def known(self) -> bool:
        """Whether there is a mask."""
        return self.mask is not None

    @property
    def classes(self) -> Counter[int]:
        """Pixels per class id, for those that occur, without the background."""
        return Counter({i: n for i, n in enumerate(self.pixels) if i and n})


class LabeledImage(Protocol):
    """What a split needs to know about an image with either kind of labels: boxes or masks."""

    @property
    def image(self) -> Path:
        """Absolute path."""

    @property
    def source(self) -> Path | None:
        """As of :class:`Item`."""

    @property
    def split(self) -> str | None:
        """One of :data:`SPLITS` if the source has splits, else None."""

    @property
    def known(self) -> bool:
        """Whether there are labels."""

    @property
    def classes(self) -> Counter[int]:
        """Boxes or pixels per class id, for those that occur."""


ItemT = TypeVar("ItemT", bound=LabeledImage, covariant=True)


@dataclass(frozen=True)
class LabeledSet(Generic[ItemT]):
    """A whole data set.

    Attributes:
        name: Short name for folders and reports.
        names: Class names in id order; of masks the background first.
        items: All usable images, in a stable order.
        skipped: (file, reason) of each image left out because ``skip_bad`` was set.
        account: The roles of all other files of the source, and warnings.
    """

    name: str
    names: tuple[str, ...]
    items: tuple[ItemT, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    account: Account = field(default_factory=Account)
    depth: int = 8


class DetectionSet(LabeledSet[Item]):
    """A data set with boxes."""


class MaskSet(LabeledSet[MaskItem]):
    """A data set with masks."""


_INVISIBLE = "\u200b\u2060\ufeff"
"""Characters without width, which come from web pages and make two names of one."""


def check_names(names: Iterable[object], where: object) -> tuple[str, ...]:
    """Class names as strings, each unique and not empty.

    Args:
        names: Names in id order.
        where: File or key the names come from, for the message.

    Raises:
        UserError: There is no name, a name is empty, or one occurs twice (letter case is ignored).
    """
    checked = tuple(str(name).strip() for name in names)
    if not checked:
        raise UserError(f"no class names in {where}; list them there or pass names=[a,b,c]")
    if "" in checked:
        raise UserError(f"class {checked.index('')} has an empty name in {where}; give it one")
    for name in checked:
        if odd := [c for c in name if unicodedata.category(c) == "Cc" or c in _INVISIBLE]:
            raise UserError(
                f"class name {name!r} in {where} has an invisible character (U+{ord(odd[0]):04X}); remove it"
            )
    folded = [name.casefold() for name in checked]
    for i, name in enumerate(folded):
        first = folded.index(name)
        if first < i:
            raise UserError(
                f"duplicate class name '{checked[i]}' (ids {first} and {i}) in {where}; "
                "rename one, or merge the two ids in the labels"
            )
    return checked
