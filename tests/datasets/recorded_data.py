"""A source, its import, and the record of a run that was started with it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dfssd.datasets.account import Account, Accounted, Role
from dfssd.datasets.data_state import write_state
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import DetectionSet, Item, LabeledSet
from dfssd.datasets.split_files import write_split
from dfssd.datasets.splits import LISTS, Split
from dfssd.files import link_or_copy

NAMES = ("dark", "bright")
LISTED = {"train_labeled": (0, 1, 2, 3), "train_unlabeled": (4, 5), "val": (6,), "test": (7,)}
UNLABELED, NOT_LISTED = 5, 8


@dataclass
class Place:
    """A source of nine images, its import, and the record of a run.

    Images are linked into the import, but for image 1, which is a file of its own with the same content.
    """

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "set"

    def image(self, number: int) -> Path:
        return self.source / "images" / f"{number}.png"

    def label(self, number: int) -> Path:
        return self.source / "labels" / f"{number}.txt"

    @property
    def imported(self) -> Path:
        return self.root / "data" / "set-0123"

    @property
    def splits(self) -> Path:
        return self.root / "run" / "splits"

    def build(self) -> LabeledSet:
        for folder in (self.source, self.imported):
            for part in ("images", "labels"):
                (folder / part).mkdir(parents=True)
        (self.source / "classes.txt").write_text("dark\nbright\n")
        (self.source / "notes.png").write_text("no image")
        for number in range(9):
            self.image(number).write_bytes(b"pixels %d" % number)
            if number != UNLABELED:
                self.label(number).write_text(f"{number % 2} 0.5 0.5 0.25 0.25\n")
        return self.read()

    def read(self) -> DetectionSet:
        """The data set, imported anew."""
        items = []
        shutil.rmtree(self.imported)
        for part in ("images", "labels"):
            (self.imported / part).mkdir(parents=True)
        for source in sorted((self.source / "images").iterdir()):
            target, label = self.imported / "images" / source.name, self.label(int(source.stem))
            (shutil.copyfile if source.stem == "1" else link_or_copy)(source, target)
            if label.exists():
                shutil.copyfile(label, self.imported / "labels" / label.name)
            items.append(Item(target, read_label_file(label, 2) if label.exists() else None, None, source=source))
        labels = [Accounted(path, Role.LABEL) for path in sorted((self.source / "labels").iterdir())]
        other = Accounted(self.source / "classes.txt", Role.CLASS_LIST)
        out = Accounted(self.source / "notes.png", Role.LEFT_OUT, "it is no image")
        return DetectionSet("set", NAMES, tuple(items), account=Account((other, *labels, out)))


def split_of(dataset: LabeledSet) -> Split:
    return Split(**{name: tuple(dataset.items[i].image for i in LISTED[name]) for name in LISTS})


def recorded(root: Path) -> Place:
    """The place in ``root``, with the ``splits/`` of a run."""
    place = Place(root)
    dataset = place.build()
    write_state(place.splits, split_of(dataset), dataset)
    write_split(split_of(dataset), dataset, place.splits)
    return place


def rewrite(path: Path, content: bytes) -> None:
    """Other content under the same name, as editors and tools write it."""
    path.unlink()
    path.write_bytes(content)


def set_back(path: Path, content: bytes) -> None:
    """Other content of the same size, with the time of the old one."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def touch(place: Place) -> None:
    for path in place.source.rglob("*"):
        path.touch()


def delete(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def swap(place: Place) -> None:
    a, b = (place.label(n).read_bytes() for n in (0, 1))
    place.label(0).write_bytes(b)
    place.label(1).write_bytes(a)
