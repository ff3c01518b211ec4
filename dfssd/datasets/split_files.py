"""The lists of a split on disk: four ``.txt`` files, ``split.json``, and ``data.yaml`` for plain Ultralytics."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.datasets.data_state import check_listed
from dfssd.datasets.file_records import FILES
from dfssd.datasets.records import LabeledImage, LabeledSet
from dfssd.datasets.splits import LISTS, Split, check_classes
from dfssd.errors import UserError
from dfssd.files import write_json, write_text, write_yaml

Finder = Callable[[str], LabeledImage | None]
"""From a listed path, perhaps of another machine, to its image in the data set; None if there is none."""


def write_split(
    split: Split,
    dataset: LabeledSet[LabeledImage],
    folder: Path,
    *,
    unit: str = "boxes",
    first: int = 0,
    more: Mapping[str, object] | None = None,
) -> Path:
    """Write the four lists, ``split.json`` and ``data.yaml`` to ``folder``.

    ``data.yaml`` describes the labeled images alone, ready for plain ``yolo train data=``. ``split.json`` is written
    last, so its presence means that the split is complete.

    Args:
        split: What to write.
        dataset: The data set, for names and counts.
        folder: Where to.
        unit: What the ``classes`` of an image count, as named in ``split.json``.
        first: Id of the first class that is counted.
        more: Additional entries of ``data.yaml``.

    Returns:
        Path of ``data.yaml``.
    """
    for name in LISTS:
        write_text(folder / f"{name}.txt", "".join(f"{path}\n" for path in getattr(split, name)))
    data_yaml = folder / "data.yaml"
    write_yaml(
        data_yaml,
        {
            "train": "train_labeled.txt",
            "val": "val.txt",
            "test": "test.txt",
            **(more or {}),
            "names": dict(enumerate(dataset.names)),
        },
    )
    write_json(
        folder / "split.json",
        {
            "dataset": dataset.name,
            "names": list(dataset.names),
            "seed": split.seed,
            "counts": _counts(split, dataset, unit, first),
            "duplicates": [[str(path) for path in group] for group in split.duplicates],
            "left_out": [str(path) for path in split.left_out],
            "skipped": [[str(path), reason] for path, reason in dataset.skipped],
        },
    )
    return data_yaml


def _counts(
    split: Split, dataset: LabeledSet[LabeledImage], unit: str, first: int
) -> dict[str, dict[str, int | dict[str, int]]]:
    """Images and units of each list, in total and by class."""
    by_path = {item.image: item for item in dataset.items}
    labels = dict(enumerate(dataset.names[first:], first))
    counts: dict[str, dict[str, int | dict[str, int]]] = {}
    for name in LISTS:
        items = [by_path[path] for path in getattr(split, name)]
        images = Counter(c for item in items for c in item.classes)
        units = sum((item.classes for item in items), Counter())
        counts[name] = {
            "images": len(items),
            unit: units.total(),
            "images_per_class": {label: images[i] for i, label in labels.items()},
            f"{unit}_per_class": {label: units[i] for i, label in labels.items()},
        }
    return counts


def read_split(
    source: Path, dataset: LabeledSet[LabeledImage], exempt_classes: int = 0, *, imported: str = ""
) -> Split:
    """Read the lists that :func:`write_split` wrote, perhaps on another machine.

    Images, labels and class names have to be those that the split was written for, if it has a record of them
    (:mod:`dfssd.datasets.data_state`).

    Args:
        source: The folder, or a file in it such as ``data.yaml``.
        dataset: The data set; listed images are found in it by path, else by the name of the file, or of file and
            folder, where that is unique.
        exempt_classes: Number of leading classes that need no labeled image.
        imported: Settings of the import that change pixels or boxes, as text.

    Raises:
        UserError: A list is missing, names an unknown image, an image without labels, or one of another list; or
            images, labels or class names are not those that the split was written for.
    """
    files = list_files(source)
    folder = files[LISTS[0]].parent
    find = _finder(dataset.items)
    lists: dict[str, tuple[Path, ...]] = {}
    listed_in: dict[Path, str] = {}
    for name, file in files.items():
        lists[name] = _read_list(file, dataset.name, find, listed_in, labeled=name != "train_unlabeled")
        if not lists[name] and name != "train_unlabeled":
            raise UserError(f"{file} is empty; pass the splits/ folder of an earlier run")
    summary = _read_summary(folder)
    if (folder / FILES).is_file():
        _check_names(source, summary, dataset.names)
        check_listed(folder, f"split={source}", _among(listed_in, find), imported=imported)
    split = Split(
        lists["train_labeled"],
        lists["train_unlabeled"],
        lists["val"],
        lists["test"],
        duplicates=_known_duplicates(summary, find, listed_in),
    )
    check_classes(split, dataset, exempt_classes)
    return split


def list_files(source: Path) -> dict[str, Path]:
    """The files of the four lists by name.

    Args:
        source: Their folder, or a file in it such as ``data.yaml``.

    Raises:
        UserError: One does not exist.
    """
    folder = source if source.is_dir() else source.parent
    files = {name: folder / f"{name}.txt" for name in LISTS}
    for file in files.values():
        if not file.is_file():
            raise UserError(f"split={source}: {file} does not exist; pass the splits/ folder of an earlier run")
    return files


def _read_list(
    file: Path,
    dataset: str,
    find: Finder,
    listed_in: dict[Path, str],
    *,
    labeled: bool,
) -> tuple[Path, ...]:
    """The images of one list, which are added to ``listed_in`` (image -> name of its list)."""
    found, unknown = [], []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{file} cannot be read as a list ({e}); pass the splits/ folder of an earlier run") from e
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()):
            continue
        item = find(line)
        if item is None:
            unknown.append(f"{number}: {line}")
            continue
        if item.image in listed_in:
            raise UserError(f"{file}:{number}: {line} is also in {listed_in[item.image]}; keep it in one list")
        if labeled and not item.known:
            raise UserError(f"{file}:{number}: {line} has no labels; move it to train_unlabeled.txt")
        listed_in[item.image] = file.name
        found.append(item.image)
    if unknown:
        more = f", nor are {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UserError(
            f"{file}:{unknown[0]} is not in data set {dataset}{more}; pass the same data=, unlabeled= again"
        )
    return tuple(found)


def _finder(items: Sequence[LabeledImage]) -> Finder:
    """Finds images by path, else by name, or by folder and name where a name repeats."""
    by_path = {str(item.image): item for item in items}
    by_name: dict[str, list[LabeledImage]] = defaultdict(list)
    for item in items:
        by_name[item.image.name].append(item)

    def find(line: str) -> LabeledImage | None:
        *folders, name = line.replace("\\", "/").split("/")
        same = by_name.get(name, [])
        if len(same) > 1:  # names may repeat in the folders of train and test
            same = [item for item in same if folders[-1:] == [item.image.parent.name]]
        return by_path.get(line) or (same[0] if len(same) == 1 else None)

    return find


def _among(used: Container[Path], find: Finder) -> Finder:
    """``find``, for images in ``used`` only."""

    def find_used(line: str) -> LabeledImage | None:
        item = find(line)
        return item if item is not None and item.image in used else None

    return find_used


def _read_summary(folder: Path) -> dict[str, Any]:
    """Content of ``split.json``; empty if there is none that can be read."""
    try:
        summary = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _check_names(source: Path, summary: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise :class:`UserError` if the split was written for other class names, or for the same in another order."""
    then = summary.get("names")
    if isinstance(then, list) and then != list(names):
        raise UserError(
            f"split={source}: its classes are {', '.join(map(str, then))}, those of the data {', '.join(names)}; "
            "restore them, or leave split= out to draw a new one"
        )


def _known_duplicates(summary: Mapping[str, Any], find: Finder, used: Container[Path]) -> tuple[tuple[Path, ...], ...]:
    groups = summary.get("duplicates")
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        return ()
    found = [[item.image for path in group if (item := find(str(path))) is not None] for group in groups]
    return tuple(tuple(image for image in group if image in used) for group in found)
