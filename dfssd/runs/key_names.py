"""The keys of a command line, read without importing the packages that define them.

The data of a run can be checked without torch and Ultralytics, which take seconds to import. Their keys still have to
be known, so that a whole training line is accepted and a misspelled key is not. Their values are checked by
:mod:`dfssd.runs.configure`, when the line is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfssd.config import ARGUMENTS, KEYS, Config, NameSpaces, OutsideTerm, outside, resolve
from dfssd.distillation.schedules import SCHEDULES
from dfssd.files import read_yaml
from dfssd.resources import PACKAGE
from dfssd.trust.limits import set_limits

_TERMS = PACKAGE / "distillation" / "terms"


def configure_data(given: Mapping[str, Any]) -> Config:
    """Resolve parsed arguments of which only those of the data are used.

    Args:
        given: Flat dict as :func:`~dfssd.config.parse.parse_arguments` returns it.

    Raises:
        UserError: Unknown keys, wrong values of our keys, or contradictory combinations; all problems at once.
    """
    config = resolve(given, names_only())
    set_limits(config.limits)
    return config


@cache
def names_only() -> NameSpaces:
    """The same keys as :func:`dfssd.runs.configure.name_spaces`; any value of those that are not ours is taken."""
    terms = _registered_terms()
    return NameSpaces(
        training=_ultralytics_arguments(),
        terms={name: term.options for name, term in terms.items()},
        feature_terms={name for name, term in terms.items() if "FeatureTerm" in term.ancestors},
        schedules=SCHEDULES,
        training_problem=lambda key, value: None,
        term_problem=lambda name, options: None,
        outside=lambda name: OutsideTerm(None, is_feature_term=False) if outside.find(name) else None,
    )


def keys_of_runs() -> set[str]:
    """The names of all keys of a run, also of those that it refuses with a reason, without the options of terms."""
    return {*KEYS, *ARGUMENTS, *_ultralytics_arguments()}


def _ultralytics_arguments() -> dict[str, Any]:
    """Ultralytics' arguments with their defaults, from the file that holds them."""
    found = find_spec("ultralytics")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("the arguments of Ultralytics are unknown without it", name="ultralytics")
    return read_yaml(Path(found.submodule_search_locations[0]) / "cfg" / "default.yaml")


@dataclass(frozen=True)
class _Term:
    """A class of the package of the terms.

    Attributes:
        bases: Names of its base classes.
        own: Its keyword-only arguments with their defaults; None if it has no constructor.
    """

    bases: tuple[str, ...]
    own: Mapping[str, Any] | None


@dataclass(frozen=True)
class _Registered:
    """A registered term: its options with their defaults, and the names of all its base classes."""

    options: Mapping[str, Any]
    ancestors: tuple[str, ...]


def _registered_terms() -> dict[str, _Registered]:
    """Name -> term, from the source of the package of the terms."""
    classes: dict[str, _Term] = {}
    registry: dict[str, str] = {}
    for file in sorted(_TERMS.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = _Term(tuple(b.id for b in node.bases if isinstance(b, ast.Name)), _options(node))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TERMS":
                registry.update(_entries(node.value))
    return {name: _resolved(own, classes) for name, own in registry.items()}


def _entries(table: ast.expr | None) -> Iterator[tuple[str, str]]:
    """Name and class of each line of the registry."""
    assert isinstance(table, ast.Dict)
    for key, value in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Constant) and isinstance(value, ast.Name)
        yield str(key.value), value.id


def _options(node: ast.ClassDef) -> dict[str, Any] | None:
    """The keyword-only arguments of the constructor of a class with their defaults; None if it has none."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            pairs = zip(part.args.kwonlyargs, part.args.kw_defaults, strict=True)
            return {argument.arg: ast.literal_eval(default) for argument, default in pairs if default is not None}
    return None


def _resolved(name: str, classes: Mapping[str, _Term]) -> _Registered:
    """A class with what it inherits, the first base class first."""
    ancestors: list[str] = []
    options: Mapping[str, Any] | None = None
    todo = [name]
    while todo:
        current = todo.pop(0)
        if (term := classes.get(current)) is not None:
            ancestors.append(current)
            options = term.own if options is None else options
            todo = [*term.bases, *todo]
    return _Registered(options or {}, tuple(ancestors))
