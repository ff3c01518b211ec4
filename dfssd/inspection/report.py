"""What a data set holds as training reads it: images by role and split, boxes by class, copies, and all other files."""

from __future__ import annotations

import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from dfssd.datasets.account import Accounted, Role
from dfssd.datasets.copies.twins import Leak
from dfssd.datasets.images.files import map_files
from dfssd.datasets.images.pixels import read_pixels
from dfssd.datasets.records import Item, LabeledImage, LabeledSet, MaskItem, MaskSet
from dfssd.datasets.splits import Split
from dfssd.wording import counted, have, short_paths

Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = ("train", "val", "test")

COPY = "is a copy of a labeled image, or of one in val or test"
"""Why an image without labels is left out of a split."""

IMAGE_ROLES = (Role.LABELED, Role.DEFECT_FREE, Role.UNLABELED)
"""The roles of images that a run can use."""

Box = tuple[str, float, float, float, float]
"""Class name and corners x1, y1, x2, y2 [px]."""


@dataclass(frozen=True)
class ReportedImage:
    """One image as training reads it.

    Attributes:
        path: A file with the pixels that training reads: that of the user if it has the same bytes, else the one that
            was made on import.
        source: The file of the user; in a zip file ``<zip>/<member>``.
        role: One of :data:`IMAGE_ROLES`.
        part: Its part of the split; None where no split is drawn, and for images that ``limit=`` leaves out.
        size: (width, height) of ``path`` [px], turned as its EXIF orientation says.
        boxes: Its boxes, in pixels of ``path``.
        hidden: It has labels, but the training uses it without (``labeled=`` below 1).
        mask: File of its mask.
        pixels: Pixels of each class in the mask, by name, for those that occur.
    """

    path: Path
    source: Path
    role: Role
    part: Part | None
    size: tuple[int, int]
    boxes: tuple[Box, ...] = ()
    hidden: bool = False
    mask: Path | None = None
    pixels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DataReport:
    """A data set, its split, and what is known about each of its files.

    Attributes:
        dataset: The data set as imported.
        split: The split that a run with the same keys would use; None if none can be drawn.
        copies: Groups of images that are copies of each other, each of two or more.
        leaks: Images of val and of test that have a copy in training; for masks a copy in any pose, or in part.
        problems: What stops a run with these keys, besides its networks: one sentence each.
    """

    dataset: LabeledSet[Item] | LabeledSet[MaskItem]
    split: Split | None
    copies: tuple[tuple[Path, ...], ...] = ()
    leaks: Mapping[Part, tuple[Leak, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in id order; of masks the background first."""
        return self.dataset.names

    @property
    def masks(self) -> bool:
        """Whether the labels are masks, not boxes."""
        return isinstance(self.dataset, MaskSet)

    @cached_property
    def items(self) -> tuple[Item | MaskItem, ...]:
        """The images, without those that the split leaves out."""
        dropped = set(self.split.left_out) if self.split else set()
        return tuple(item for item in self.dataset.items if item.image not in dropped)

    @cached_property
    def parts(self) -> Mapping[Path, Part]:
        """Part of each image that the split uses."""
        return parts_of(self.split)

    @cached_property
    def hidden(self) -> frozenset[Path]:
        """Training images whose labels are not used (``labeled=`` below 1)."""
        unlabeled = set(self.split.train_unlabeled) if self.split else set()
        return frozenset(item.image for item in self.items if item.image in unlabeled and is_labeled(item))

    @cached_property
    def counts(self) -> Mapping[Role, Counter[Part | None]]:
        """Images by role and part; None counts those in no part."""
        counts: dict[Role, Counter[Part | None]] = {role: Counter() for role in IMAGE_ROLES}
        for item in self.items:
            counts[role_of(item)][self.parts.get(item.image)] += 1
        return counts

    @cached_property
    def by_class(self) -> Mapping[str, Counter[Part | None]]:
        """Boxes by class name and part; for masks the images that show the class, without the background."""
        counts: dict[str, Counter[Part | None]] = {name: Counter() for name in self.names[1 if self.masks else 0 :]}
        for item in self.items:
            if is_labeled(item):
                for i, n in item.classes.items():
                    counts[self.names[i]][self.parts.get(item.image)] += 1 if self.masks else n
        return counts

    @property
    def counted(self) -> int:
        """Number of all files of the source, the sum of :attr:`files`; 0 if they were not counted."""
        return self.dataset.account.counted

    @cached_property
    def files(self) -> Mapping[Role, int]:
        """Number of files by role, images included, for roles that occur."""
        files = self.dataset.account.roles()
        files[Role.LEFT_OUT] = len(self.left_out)
        for role, counts in self.counts.items():
            files[role] += counts.total()
        return {role: files[role] for role in Role if files[role]}

    @cached_property
    def left_out(self) -> tuple[Accounted, ...]:
        """Files that are not used, each with its reason."""
        return _left_out(self.dataset, self.split)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know first: one sentence each, without a full stop."""
        return (*self.dataset.account.warnings, *_own_warnings(self))

    @cached_property
    def _sources(self) -> Mapping[Path, Path]:
        """Files of the user, by image, of images that have copies."""
        wanted = {image for group in self.copies for image in group}
        wanted |= {image for leaks in self.leaks.values() for leak in leaks for image in (leak.image, *leak.twins)}
        return {item.image: item.source or item.image for item in self.dataset.items if item.image in wanted}

    def source_of(self, image: Path) -> Path:
        """The file of the user that an image with copies was made from."""
        return self._sources[image]

    @property
    def surplus(self) -> int:
        """Number of images that are a copy of an earlier one."""
        return sum(len(group) - 1 for group in self.copies)

    @cached_property
    def torn(self) -> tuple[tuple[Path, ...], ...]:
        """Groups of copies that are divided between training and val or test."""
        sides = ({self.parts[image] == "train" for image in group if image in self.parts} for group in self.copies)
        return tuple(group for group, found in zip(self.copies, sides, strict=True) if len(found) > 1)

    def images(self) -> Iterator[ReportedImage]:
        """Each image, in the order of the data set, made one by one: there may be a million.

        Raises:
            UserError: An image can no longer be read.
        """
        for item in self.items:
            yield self._facts(item)

    def _facts(self, item: Item | MaskItem) -> ReportedImage:
        size = item.size or self._measured[item.image]
        facts = ReportedImage(
            path=pixels_path(item),
            source=item.source or item.image,
            role=role_of(item),
            part=self.parts.get(item.image),
            size=size,
            hidden=item.image in self.hidden,
        )
        if not is_labeled(item):
            return facts
        if isinstance(item, MaskItem):
            pixels = {self.names[i]: n for i, n in enumerate(item.pixels) if n}
            return replace(facts, mask=item.mask, pixels=pixels)
        return replace(facts, boxes=self._boxes(item, size))

    def _boxes(self, item: Item, size: tuple[int, int]) -> tuple[Box, ...]:
        assert item.boxes is not None
        rows = []
        for (class_id, *_), corners in zip(item.boxes, corner_boxes(item.boxes, size).tolist(), strict=True):
            x1, y1, x2, y2 = (round(value, 2) + 0.0 for value in corners)  # + 0.0: no negative zero
            rows.append((self.names[int(class_id)], x1, y1, x2, y2))
        return tuple(rows)

    @cached_property
    def _measured(self) -> Mapping[Path, tuple[int, int]]:
        """Sizes that the import has not recorded."""
        images = [item.image for item in self.items if item.size is None]
        return dict(zip(images, map_files(_decoded_size, images, "Measuring images"), strict=True))


def inspect_data(
    dataset: LabeledSet[Item] | LabeledSet[MaskItem],
    split: Split | None,
    groups: Sequence[int],
    *,
    leaks: Mapping[Part, Sequence[Leak]] | None = None,
    problems: Sequence[str] = (),
) -> DataReport:
    """Describe a data set and its split.

    Args:
        dataset: The data set.
        split: Its split; None if none can be drawn.
        groups: Group number of each item; copies share one.
        leaks: Images of val and test with a copy in training; None: as ``groups`` says.
        problems: Why no split can be drawn.
    """
    images = [item.image for item in dataset.items]
    copies = groups_of(images, groups)
    if leaks is None:
        leaks = leaks_between(copies, parts_of(split))
    found = {part: tuple(own) for part, own in leaks.items() if own}
    return DataReport(dataset, split, copies, found, tuple(problems))


def is_labeled(item: LabeledImage) -> bool:
    """Whether the labels of an image count: those of a part "unlabeled" only serve to measure pseudo-labels."""
    return item.known and item.split != "unlabeled"


def role_of(item: LabeledImage) -> Role:
    """What an image is: one of :data:`IMAGE_ROLES`."""
    if not is_labeled(item):
        return Role.UNLABELED
    return Role.LABELED if item.classes else Role.DEFECT_FREE


def parts_of(split: Split | None) -> dict[Path, Part]:
    """Part of each image that a split uses."""
    if split is None:
        return {}
    lists: tuple[tuple[Part, tuple[Path, ...]], ...] = (
        ("train", split.train_labeled),
        ("train", split.train_unlabeled),
        ("val", split.val),
        ("test", split.test),
    )
    return {image: part for part, images in lists for image in images}


def groups_of(images: Sequence[Path], groups: Sequence[int]) -> tuple[tuple[Path, ...], ...]:
    """The images of each group that has two or more."""
    members: dict[int, list[Path]] = defaultdict(list)
    for image, group in zip(images, groups, strict=True):
        members[group].append(image)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


def leaks_between(copies: Sequence[Sequence[Path]], parts: Mapping[Path, Part]) -> dict[Part, list[Leak]]:
    """Images of val and of test that have a copy in train."""
    leaks: dict[Part, list[Leak]] = {"val": [], "test": []}
    for group in copies:
        trained = tuple(image for image in group if parts.get(image) == "train")
        for image in group:
            if trained and (part := parts.get(image)) in ("val", "test"):
                leaks[part].append(Leak(image, trained))
    return leaks


def corner_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rows [class id, x, y, w, h] (center format, 0-1) as corners x1, y1, x2, y2 [px], (n, 4) float64."""
    rows = boxes[:, 1:].astype(np.float64)
    half = rows[:, 2:] / 2
    return np.hstack([rows[:, :2] - half, rows[:, :2] + half]) * np.array([*size, *size], dtype=np.float64)


def pixels_path(item: Item | MaskItem) -> Path:
    """The user's own file if training reads the same bytes, else the imported one."""
    source = item.source
    if source is None or source == item.image or not source.is_file():  # also a member of a zip file
        return item.image
    try:
        same = os.path.samefile(source, item.image) or filecmp.cmp(source, item.image, shallow=False)
    except OSError:
        return item.image
    return source if same else item.image


def _decoded_size(path: Path) -> tuple[int, int]:
    height, width = read_pixels(path).shape[:2]
    return width, height


def _left_out(dataset: LabeledSet[Item] | LabeledSet[MaskItem], split: Split | None) -> tuple[Accounted, ...]:
    """Files that are not used: those of the import, then images that belong to val or test, or copy them."""
    files = list(dataset.account.left_out)
    known = {file.path for file in dataset.account.files}
    for path, reason in dataset.skipped:
        if path not in known:
            files.append(Accounted(path, Role.LEFT_OUT, reason.removeprefix(f"{path}: ")))
    dropped = set(split.left_out) if split else set()
    for item in dataset.items:
        if item.image in dropped:
            own = item.split in ("val", "test")
            reason = f"has no labels, but belongs to {item.split}" if own else COPY
            files.append(Accounted(item.source or item.image, Role.LEFT_OUT, reason))
    return tuple(files)


def _own_warnings(report: DataReport) -> Iterator[str]:
    """What the counts say: files without a role, copies of training images in val and test, classes missing there."""
    if missing := report.counted and report.counted - sum(report.files.values()):
        yield (
            f"{missing:,} of {counted(report.counted, 'file')} {have(missing)} no role, or "
            f"two: this is an error of the import"
        )
    for part, leaks in report.leaks.items():
        total = sum(counts[part] for counts in report.counts.values())
        pairs = [short_paths([report.source_of(image) for image in (leak.image, leak.twins[0])]) for leak in leaks[:3]]
        named = ", ".join(" = ".join(pair) for pair in pairs) + (", ..." if len(leaks) > 3 else "")
        advice = "; split=grouped avoids this" if report.masks else ""
        yield (
            f"{len(leaks):,} of {counted(total, f'{part} image')} {have(len(leaks))} a copy in training ({named}): "
            f"{part} scores will be too optimistic{advice}"
        )
    for part in ("val", "test") if report.split else ():
        found = {name: counts for name, counts in report.by_class.items() if counts.total()}
        if lacking := [name for name, counts in found.items() if not counts[part]]:
            named = ", ".join(lacking[:5]) + (f", and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            yield f"{part} has no {named}: no score can be measured for it there"
