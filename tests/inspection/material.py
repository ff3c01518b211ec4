"""A small data set with an account of all its files, made by hand: what the import hands to the inspection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dfssd.datasets.account import Account, Accounted, Role
from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.splits import Split
from dfssd.inspection.report import DataReport, inspect_data

NAMES = ("dark", "bright")


def write_image(path: Path, *, width: int = 80, height: int = 40, seed: int = 0) -> Path:
    """Gray noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(90, 160, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    """Rows [class id, x, y, w, h] (center format, 0-1)."""
    return np.array(rows, dtype=np.float32).reshape(-1, 5)


def dataset(root: Path) -> DetectionSet:
    """Eight images, each linked from ``root/mine`` to ``root/imported/images``, and five other files.

    ``a`` (two boxes), ``b`` (one) and ``c`` (defect-free) are labeled, ``copy`` has the boxes of ``a``, ``u``, ``v``
    and ``w`` have no labels, ``w`` belongs to test, ``x`` lies in a part "unlabeled" with a box.
    """
    rows = {
        "a": (boxes((0, 0.25, 0.5, 0.25, 0.5), (1, 0.75, 0.25, 0.125, 0.25)), None),
        "b": (boxes((1, 0.5, 0.5, 0.5, 0.5)), None),
        "c": (boxes(), None),
        "copy": (boxes((0, 0.25, 0.5, 0.25, 0.5), (1, 0.75, 0.25, 0.125, 0.25)), None),
        "u": (None, None),
        "v": (None, None),
        "w": (None, "test"),
        "x": (boxes((0, 0.5, 0.5, 0.5, 0.5)), "unlabeled"),
    }
    items = []
    for seed, (name, (own, split)) in enumerate(rows.items()):
        source = write_image(root / "mine" / f"{name}.png", seed=seed)
        image = root / "imported" / "images" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.hardlink_to(source)
        items.append(Item(image, own, split, source=source, size=(80, 40)))
    mine = root / "mine"
    files = (
        Accounted(mine / "a.txt", Role.LABEL),
        Accounted(mine / "b.txt", Role.LABEL),
        Accounted(mine / "classes.txt", Role.CLASS_LIST),
        Accounted(mine / "notes.docx", Role.LEFT_OUT, "is neither an image nor a label"),
        Accounted(mine / "more.docx", Role.LEFT_OUT, "is neither an image nor a label"),
    )
    account = Account(files, {"hidden": 2}, ("label files of 2 images were empty",), counted=13)
    return DetectionSet("mine", NAMES, tuple(items), account=account)


def split_of(data: DetectionSet) -> Split:
    """``a`` is trained on and ``c`` without its labels, ``b`` is val, ``copy`` test; ``v`` and ``w`` are left out."""
    at = {item.image.stem: item.image for item in data.items}
    return Split(
        train_labeled=(at["a"],),
        train_unlabeled=(at["c"], at["u"], at["x"]),
        val=(at["b"],),
        test=(at["copy"],),
        left_out=(at["v"], at["w"]),
    )


def report(root: Path, **changes: object) -> DataReport:
    """The report on these; ``a``, ``copy`` and ``v`` show the same, ``changes`` are of the data set."""
    data = replace(dataset(root), **changes)
    return inspect_data(data, split_of(data), [0, 1, 2, 0, 4, 0, 6, 7])
