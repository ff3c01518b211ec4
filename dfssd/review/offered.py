"""The boxes that were offered to a reviewer, kept with the run, and what has become of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from dfssd.datasets.geometry import is_same_place
from dfssd.datasets.overlap import box_iou
from dfssd.errors import UserError
from dfssd.files import write_json
from dfssd.review.formats import Offer
from dfssd.review.proposals import SAME_OBJECT

FILE = "review/offered.json"
"""In a run folder: image -> rows [class id, x, y, w, h], center format, 0-1, that its last export has offered."""


@dataclass(frozen=True)
class Changes:
    """What a person has made of the boxes that were offered; each box counts once.

    Attributes:
        kept: Same class, same place.
        moved: Same class, another place, with an IoU of 0.5 or more.
        relabeled: Another class, with an IoU of 0.5 or more.
        added: Drawn where none was offered.
        deleted: Offered, and gone.
    """

    kept: int = 0
    moved: int = 0
    relabeled: int = 0
    added: int = 0
    deleted: int = 0

    def __add__(self, other: Changes) -> Changes:
        """Those of two sets of images."""
        return Changes(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def nothing(self) -> bool:
        """Whether all boxes are as they were offered."""
        return not (self.moved or self.relabeled or self.added or self.deleted)

    def __str__(self) -> str:
        """``12 kept, 3 moved, 1 relabeled, 5 added, 9 deleted``."""
        return ", ".join(f"{number:,} {name}" for name, number in vars(self).items())


@dataclass(frozen=True)
class Reviewed:
    """What has become of the offered boxes.

    Attributes:
        images: Images whose offered boxes are known.
        unknown: Reviewed images that no export of the run has offered, or one by a version that kept no record.
        changes: In the known images.
    """

    images: int
    unknown: int
    changes: Changes


def changes_of(offered: np.ndarray, reviewed: np.ndarray, size: tuple[int, int]) -> Changes:
    """What has become of the boxes of an image.

    The pairs are those of the assignment with the most kept boxes, among these with the most moved and then the most
    relabeled ones, and at last with the largest overlap. A box that is offered twice in one place counts once.

    Args:
        offered: Rows [class id, x, y, w, h], center format, 0-1, (n, 5).
        reviewed: The same of the person, (m, 5).
        size: Width and height of the image [px].
    """
    overlap = box_iou(offered[:, 1:], reviewed[:, 1:])
    alike = offered[:, None, 0] == reviewed[None, :, 0]
    place = is_same_place(offered, reviewed, size)
    near = (overlap >= SAME_OBJECT) | place
    most = 1.0 + min(len(offered), len(reviewed))
    kinds = [alike & place, alike & near & ~place, near & ~alike]
    value = sum(kind * most ** (3 - rank) for rank, kind in enumerate(kinds)) + near * overlap
    pairs = linear_sum_assignment(value, maximize=True)
    kept, moved, relabeled = (int(kind[pairs].sum()) for kind in kinds)
    left = np.ones(len(offered), bool)
    left[pairs[0][near[pairs]]] = False
    deleted = int((left & ~kinds[0].any(1)).sum())
    return Changes(kept, moved, relabeled, len(reviewed) - kept - moved - relabeled, deleted)


def write_offered(run: Path, offers: Sequence[Offer]) -> None:
    """Add what an export has offered to the record of a run; an image that was offered before gets the new boxes."""
    new = {
        str(offer.image): np.unique(np.column_stack([offer.found.classes, offer.found.boxes_xywhn]), axis=0).tolist()
        for offer in offers
    }
    write_json(run / FILE, {**_read(run), **new})


def compare_with_offered(
    run: Path | None, reviewed: Mapping[Path, np.ndarray], sizes: Mapping[Path, tuple[int, int]]
) -> Reviewed:
    """Compare reviewed boxes with those that were offered.

    Args:
        run: Run folder; None: the labels belong to no run.
        reviewed: Image -> rows of the person.
        sizes: Width and height of these images [px].

    Raises:
        UserError: The record of the run is damaged.
    """
    offered = {} if run is None else _read(run)
    known = {image: np.array(offered[str(image)]).reshape(-1, 5) for image in reviewed if str(image) in offered}
    changes = (changes_of(rows, reviewed[image], sizes[image]) for image, rows in known.items())
    return Reviewed(len(known), len(reviewed) - len(known), sum(changes, Changes()))


def _read(run: Path) -> dict[str, list[list[float]]]:
    file = run / FILE
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(image): [[float(value) for value in row] for row in rows] for image, rows in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise UserError(f"{file} cannot be read ({e}); remove it: what a review has changed is not counted then") from e
