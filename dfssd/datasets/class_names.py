"""The class names of a data set: lists that agree are one list, lists that do not are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dfssd.datasets.annotations import Annotation, LabelFile
from dfssd.datasets.records import check_names
from dfssd.errors import UserError
from dfssd.wording import counted

_MOST_CLASSES = 100_000
"""Ids from here on are taken for a mistake, such as a coordinate in the wrong column."""


@dataclass(frozen=True)
class NameList:
    """Class names in id order.

    Attributes:
        names: The names.
        origin: Where they come from: a file, or words such as "names=".
        fixed: The ids are a decision of the user or of the release: unused classes stay.
    """

    names: tuple[str, ...]
    origin: Path | str
    fixed: bool = False


def agree(lists: Iterable[NameList]) -> NameList | None:
    """The longest of several lists; None if there is none.

    Tools write a list per folder, and each holds the classes used so far: one list may be the beginning of another.

    Raises:
        UserError: A list is empty, holds a name twice, or two of them give an id two names.
    """
    found: NameList | None = None
    for own in lists:
        own = replace(own, names=check_names(own.names, own.origin))
        if found is None:
            found = own
            continue
        for number, (a, b) in enumerate(zip(found.names, own.names)):
            if a != b:
                raise UserError(
                    f"{found.origin} and {own.origin} disagree: id {number} is '{a}' in the first and '{b}' in the "
                    "second; make them agree, or pass the right order as names=[a,b,c]"
                )
        if len(own.names) > len(found.names):
            found = own
    return found


def numbered(count: int) -> tuple[str, ...]:
    """What ``count`` classes are called that nobody has named: ``class_0``, ``class_1``, ..."""
    return tuple(f"class_{i}" for i in range(count))


def names_in_labels(files: Sequence[LabelFile], annotations: Sequence[Annotation]) -> NameList:
    """The classes that label files list or use, where nothing else names them.

    Lists of files come first, the longest before the others; classes that are in no list follow sorted, so that ids do
    not depend on which file happens to come first. Ids without names are called ``class_0``, ``class_1``, ...

    Args:
        files: The label files.
        annotations: Those of their annotations that have an image.

    Raises:
        UserError: Some boxes have names and others ids, or an id is absurd.
    """
    used = {label for own in annotations for label in own.labels}
    numbers = {label for label in used if isinstance(label, int)}
    texts = {label for label in used if isinstance(label, str)}
    if numbers and texts:
        raise UserError(
            f"{_first_with(int, annotations)} has class ids and {_first_with(str, annotations)} has names; pass "
            "names=[a,b,c] in id order, or labels= with the format that counts"
        )
    if numbers:
        if max(numbers) >= _MOST_CLASSES:
            raise UserError(
                f"{_first_with(int, annotations)}: class id {max(numbers)} is none; correct it, or pass names="
            )
        return NameList(numbered(max(numbers) + 1), "the labels", fixed=True)
    order = [*_listed_names(files, texts), *sorted(texts.difference(_listed_names(files, texts)))] or ["class_0"]
    return NameList(check_names(order, files[0].file if files else "the labels"), "the labels")


def _listed_names(files: Sequence[LabelFile], used: set[str]) -> list[str]:
    """The classes that label files list, without mere groups of others."""
    parents = {name for file in files for name in file.parents}
    lists = sorted((file.names for file in files if file.names), key=len, reverse=True)
    return list(dict.fromkeys(name for names in lists for name in names if name in used or name not in parents))


def _first_with(kind: type, annotations: Sequence[Annotation]) -> Path:
    """The first label file with a label of that kind."""
    return next(own.file for own in annotations if any(isinstance(label, kind) for label in own.labels))


class UnknownClassError(ValueError):
    """A label that is none of the classes.

    Attributes:
        label: The label.
    """

    def __init__(self, label: str | int, message: str):
        """Keep the label with the message."""
        super().__init__(message)
        self.label = label


def ids_of(labels: Iterable[str | int], names: Sequence[str]) -> list[int]:
    """Class ids of labels: names, or ids.

    Raises:
        UnknownClassError: A name is not among ``names``, or an id is beyond them.
    """
    ids = []
    for label in labels:
        if isinstance(label, int):
            if not 0 <= label < len(names):
                last = len(names) - 1
                raise UnknownClassError(
                    label,
                    f"class id {label} is out of range, the data set has {counted(len(names), 'class')} (0 to {last}); "
                    "correct the id or the list of names",
                )
            ids.append(label)
            continue
        if label not in names:
            near = [name for name in names if name.casefold() == label.casefold()]
            hint = f" (differs from '{near[0]}' in letter case only: make them the same)" if near else ""
            shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            raise UnknownClassError(
                label, f"class '{label}' is not among the names ({shown}){hint or '; add it to names='}"
            )
        ids.append(names.index(label))
    return ids


def yaml_names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    """The class names of a data set YAML: ``names:`` as a list or a mapping from id to name, or ``nc:`` alone.

    YAML reads ``no`` as false and ``010`` as eight: a name that is no longer what stands in the file is refused.

    Raises:
        UserError: Neither is there, ids have gaps, or a name needs quotes.
    """
    names = content.get("names")
    count = content.get("nc")
    if names is None:
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_CLASSES:
            raise UserError(f"{file} has neither names: nor a valid nc:; list the class names in id order")
        return numbered(count)
    if isinstance(names, str):
        raise UserError(f"{file}: names: must be a list, or a mapping from id to name, not the text '{names[:40]}'")
    written = _as_written(file)
    if isinstance(names, dict):
        names, written = _by_id(names, written, file)
    if not isinstance(names, list):
        raise UserError(f"{file}: names: must be a list, or a mapping from id to name")
    if not isinstance(written, list) or len(written) != len(names):
        written = [str(name) for name in names]
    for name, text in zip(names, written, strict=True):
        if isinstance(name, (list, dict)):
            raise UserError(f"{file}: names: a name is a text, not {type(name).__name__}; list one name per class")
        if not isinstance(name, str) and str(name) != text:
            raise UserError(f"{file}: names: YAML reads {text} as {name}; put it in quotes: '{text}'")
    if count not in (None, len(names)):
        raise UserError(f"{file}: nc: {count} but {counted(len(names), 'name')}; make them agree")
    return check_names(names, file)


def _by_id(names: dict[Any, Any], written: Any, file: Path) -> tuple[list[Any], list[Any]]:
    """Names in id order; the ids may stand in quotes."""
    try:
        ids = {int(str(key)): value for key, value in names.items() if not isinstance(key, bool)}
    except ValueError:
        ids = {}
    if len(ids) != len(names) or sorted(ids) != list(range(len(names))):
        shown = ", ".join(str(key) for key in list(names)[:6])
        raise UserError(
            f"{file}: the ids in names: must be 0 to {len(names) - 1} without gaps, and they are {shown}; correct them"
        )
    texts = {}
    if isinstance(written, dict):
        texts = {int(key): value for key, value in written.items() if key.isdecimal()}
    return [ids[i] for i in range(len(ids))], [texts.get(i, str(ids[i])) for i in range(len(ids))]


def _as_written(file: Path) -> Any:
    """``names:`` with every scalar as the text that stands in the file."""
    try:
        tree = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return tree.get("names") if isinstance(tree, dict) else None
