"""Records with other values, for tests."""

from __future__ import annotations

from typing import Any, TypeVar

from dfssd.results.record import RunRecord

R = TypeVar("R", bound=RunRecord)


def _section(tree: dict[str, Any], path: str) -> dict[str, Any]:
    for key in filter(None, path.split(".")):
        tree = tree.setdefault(key, {})
    return tree


def changed(record: R, path: str, **values: Any) -> R:
    """A copy with other ``values`` in a section, such as ``training.student``; an empty path is the record itself."""
    tree = record.to_json()
    _section(tree, path).update(values)
    return type(record).model_validate(tree)


def without(record: R, *paths: str) -> R:
    """A copy that lacks sections, such as ``test.baseline``."""
    tree = record.to_json()
    for path in paths:
        parent, _, key = path.rpartition(".")
        del _section(tree, parent)[key]
    return type(record).model_validate(tree)
