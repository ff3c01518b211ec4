"""What a data set is to the rest of the program: images, boxes where they are known, and class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dfssd.errors import UserError

SPLITS = ("train", "val", "test", "unlabeled")


@dataclass(frozen=True)
class Item:
    """One image and what is known about it.

    Attributes:
        image: Absolute path. Ultralytics finds the label file by swapping the last ``images`` folder for ``labels``.
        boxes: (n, 5) float32 rows [class id, x, y, w, h], xywh centre format, 0-1; (0, 5) = known to be free of
            defects; None = nothing known (unlabelled).
        split: "train", "val", "test" or "unlabeled" if the source says so, else None.
    """

    image: Path
    boxes: np.ndarray | None
    split: str | None

    @property
    def known(self) -> bool:
        """Whether the boxes are known."""
        return self.boxes is not None

    @property
    def classes(self) -> Counter[int]:
        """Boxes per class id; empty for an unlabelled image."""
        return Counter() if self.boxes is None else Counter(self.boxes[:, 0].astype(int).tolist())


@dataclass(frozen=True)
class DetectionSet:
    """A whole data set.

    Attributes:
        name: Short name for folders and reports.
        names: Class names in id order.
        items: All usable images, in a stable order.
        skipped: (file, reason) of each image left out because ``skip_bad`` was set.
    """

    name: str
    names: tuple[str, ...]
    items: tuple[Item, ...]
    skipped: tuple[tuple[Path, str], ...] = ()


class LabeledImage(Protocol):
    """What a split needs to know of an image, whatever its labels are: boxes or masks."""

    @property
    def image(self) -> Path:
        """Absolute path."""

    @property
    def split(self) -> str | None:
        """One of :data:`SPLITS` if the source says so, else None."""

    @property
    def known(self) -> bool:
        """Whether there are labels."""

    @property
    def classes(self) -> Counter[int]:
        """How much there is of each class id, for those that occur."""


class LabeledSet(Protocol):
    """What a split needs to know of a data set."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in id order."""

    @property
    def items(self) -> Sequence[LabeledImage]:
        """All usable images."""

    @property
    def skipped(self) -> tuple[tuple[Path, str], ...]:
        """(file, reason) of each image left out."""


def check_names(names: Iterable[object], where: object) -> tuple[str, ...]:
    """Class names as texts, each unique and not empty.

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
    folded = [name.casefold() for name in checked]
    for i, name in enumerate(folded):
        first = folded.index(name)
        if first < i:
            raise UserError(
                f"duplicate class name '{checked[i]}' (ids {first} and {i}) in {where}; "
                "rename one, or merge the two ids in the labels"
            )
    return checked
