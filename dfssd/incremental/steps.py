"""The data of a class-incremental protocol: the classes of each step, and the boxes in its images.

A step is trained on the images with at least one box of its own classes, and only with these boxes: not with those of
old classes, nor of later ones. Class ids are those of the whole data set, so the classes of a step and of all previous
ones are a prefix of the names. Validation and test contain all images, with the boxes of all classes so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.label_files import format_labels
from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.splits import Split
from dfssd.errors import UserError
from dfssd.files import link_or_copy, write_text, write_yaml
from dfssd.wording import counted


@dataclass(frozen=True)
class Step:
    """One step of the protocol.

    Attributes:
        number: From 1.
        first: Id of its first class.
        last: Id after its last class: the number of classes so far.
    """

    number: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"step{self.number}"


def parse_steps(value: Any, names: Sequence[str]) -> list[Step]:
    """Steps from the number of classes of each.

    Args:
        value: ``3,3`` as a string, a list of numbers, or one number.
        names: Class names of the data set.

    Raises:
        UserError: Not numbers of at least 1, fewer than two, or not as many classes as the data set has.
    """
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        counts = [int(part) for part in parts]
    except (TypeError, ValueError):
        counts = []
    if len(counts) < 2 or min(counts) < 1 or any(isinstance(part, (bool, float)) for part in parts):
        raise UserError(f"steps={value}: give the number of classes of each step, at least two steps, such as 3,3")
    if sum(counts) != len(names):
        raise UserError(
            f"steps={value} are {counted(sum(counts), 'class')}, the data set has {len(names)} ({', '.join(names)}); "
            "make them agree"
        )
    ends = [sum(counts[: k + 1]) for k in range(len(counts))]
    return [Step(k + 1, end - count, end) for k, (count, end) in enumerate(zip(counts, ends, strict=True))]


def step_boxes(item: Item, low: int, high: int) -> np.ndarray:
    """The boxes of a labeled image with a class from ``low`` up to, but not including, ``high``; (n, 5) rows."""
    boxes = np.zeros((0, 5), np.float32) if item.boxes is None else item.boxes
    return boxes[(boxes[:, 0] >= low) & (boxes[:, 0] < high)]


def write_step(dataset: DetectionSet, split: Split, step: Step, folder: Path, *, joint: bool = False) -> dict[str, Any]:
    """Write the data of a step as an Ultralytics data set, with ``data.yaml``.

    Images are linked if the file system allows it, else copied. The YAML is written last, so its presence means that
    the data is complete.

    Args:
        dataset: The whole data set.
        split: Its split; the unlabeled images are used in every step but the first.
        step: The step.
        folder: Where to write.
        joint: Train on the boxes of all classes so far: the upper bound.

    Returns:
        What was written: ``classes`` (names), ``images`` and ``boxes`` for training, ``removed`` (class name ->
        boxes of other classes in these images that were left out), ``yaml``.

    Raises:
        UserError: No training image has a box of a class of the step.
    """
    by_path = {item.image: item for item in dataset.items}
    train = _training_boxes(dataset, [by_path[path] for path in split.train_labeled], step, joint=joint)
    parts: dict[str, dict[Path, np.ndarray | None]] = {
        "train": dict(train),
        "val": {path: step_boxes(by_path[path], 0, step.last) for path in split.val},
        "test": {path: step_boxes(by_path[path], 0, step.last) for path in split.test},
    }
    # true boxes of unlabeled images, where known, evaluate pseudo-labels: only those of classes so far
    hidden = [by_path[path] for path in split.train_unlabeled]
    if step.first and hidden:  # the base learns from labels alone
        parts["unlabeled"] = {
            item.image: None if item.boxes is None else step_boxes(item, 0, step.last) for item in hidden
        }
    for part, images in parts.items():
        _write_part(folder / part, images)
    tree: dict[str, Any] = {"path": str(folder.resolve())}
    tree |= {part: f"{part}/images" for part in ("train", "val", "test")}
    if "unlabeled" in parts:
        tree["unlabeled"] = "unlabeled/images"
    names = list(dataset.names[: step.last])
    write_yaml(folder / "data.yaml", {**tree, "names": dict(enumerate(names))})
    kept = Counter(int(c) for boxes in train.values() for c in boxes[:, 0])
    shown = sum((by_path[image].classes for image in train), Counter())
    return {
        "classes": names[step.first :],
        "images": len(train),
        "boxes": kept.total(),
        "removed": {dataset.names[k]: n for k, n in sorted((shown - kept).items())},
        "yaml": str(folder / "data.yaml"),
    }


def _training_boxes(dataset: DetectionSet, items: Sequence[Item], step: Step, *, joint: bool) -> dict[Path, np.ndarray]:
    """The boxes of each training image in a step, (n, 5) rows; images without any are left out.

    Raises:
        UserError: A class of the step is in none of them.
    """
    low = 0 if joint else step.first
    train = {item.image: boxes for item in items if len(boxes := step_boxes(item, low, step.last))}
    present = {int(c) for boxes in train.values() for c in boxes[:, 0]}
    for class_id in range(step.first, step.last):
        if class_id not in present:
            raise UserError(
                f"{step.name}: no labeled training image has a box of '{dataset.names[class_id]}'; label some, or "
                "choose other steps"
            )
    return train


def _write_part(folder: Path, images: Mapping[Path, np.ndarray | None]) -> None:
    """Write ``images/`` and ``labels/`` of one part; an image whose boxes are None gets no label file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for image, boxes in images.items():
        stem = image.stem  # images from several folders may have the same name
        while stem in used:
            stem += "_"
        used.add(stem)
        target = folder / "images" / f"{stem}{image.suffix}"
        if not target.exists():
            link_or_copy(image, target)
        if boxes is not None:
            write_text(folder / "labels" / f"{stem}.txt", format_labels(boxes))
