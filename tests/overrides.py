"""Which methods of a class replace those of a base from another package, and whether a caller of that base can tell.

Used by ``test_overrides.py``; its own tests stand there, too.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Collection, Iterator
from functools import cached_property
from inspect import Parameter
from types import ModuleType
from typing import Any

OPTIONAL = {"mlflow"}
"""Packages of extras that the tests do without; modules that need one are left out."""

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def modules_of(package: ModuleType) -> list[ModuleType]:
    """All modules of a package, imported."""
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in names:
        if name.rpartition(".")[2] == "__main__":  # running the program is what importing that one means
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name not in OPTIONAL:
                raise
    return [sys.modules[name] for name in (package.__name__, *names) if name in sys.modules]


def classes_of(package: ModuleType) -> Iterator[type]:
    """The classes that a package defines at the top of its modules."""
    for module in modules_of(package):
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                yield value


def top_level(cls: type) -> str:
    """The package that a class comes from."""
    return cls.__module__.partition(".")[0]


def foreign_bases(cls: type) -> list[type]:
    """The bases of ``cls`` from other packages, in the order in which Python looks a name up."""
    return [base for base in cls.__mro__[1:] if top_level(base) not in {top_level(cls), "builtins"}]


def upstream_of(cls: type, name: str) -> type | None:
    """The foreign base whose ``name`` that of ``cls`` replaces; None without any."""
    return next((base for base in foreign_bases(cls) if name in vars(base)), None)


def is_member(value: Any) -> bool:
    """Whether a value in a class body is a method, in any of its forms, or a property."""
    return inspect.isfunction(value) or isinstance(value, (staticmethod, classmethod, property, cached_property))


def overrides_of(cls: type) -> set[str]:
    """Names of the methods and properties in the body of ``cls`` that a base from another package has as well."""
    return {name for name, value in vars(cls).items() if is_member(value) and upstream_of(cls, name)}


def kind(member: Any) -> str:
    """What ``member`` of a class body is, in words."""
    if isinstance(member, (property, cached_property)):
        return "property"
    if isinstance(member, (staticmethod, classmethod)):
        return type(member).__name__
    return "method" if callable(member) else "attribute"


def parameters(member: Any) -> list[Parameter]:
    """Parameters of a method without the instance or class that Python fills in."""
    bound = not isinstance(member, staticmethod)
    function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
    return list(inspect.signature(function).parameters.values())[1 if bound else 0 :]


def incompatibility(ours: Any, upstream: Any) -> str | None:
    """Why a call that suits ``upstream`` would not suit ``ours``, both as they stand in the class bodies; else None.

    Any parameter of upstream may be passed by place or, unless it is positional-only, by name, and left out if it has
    a default. Ours may take them one by one, under the same names and in the same order, or by ``*args``/``**kwargs``;
    what it has besides needs defaults.
    """
    if kind(ours) != kind(upstream):
        return f"is a {kind(ours)}, upstream a {kind(upstream)}"
    if kind(ours) in {"property", "attribute"}:
        return None
    mine, theirs = parameters(ours), parameters(upstream)
    places = [p for p in mine if p.kind in POSITIONAL]
    names = {p.name: p for p in mine if p.kind in NAMED}
    kinds = {p.kind for p in mine}
    args, kwargs = Parameter.VAR_POSITIONAL in kinds, Parameter.VAR_KEYWORD in kinds
    for place, wanted in enumerate(p for p in theirs if p.kind in POSITIONAL):
        at_place = places[place] if place < len(places) else None
        if at_place is None and not args:
            return f"does not take '{wanted.name}' by place {place + 1}"
        by_name = wanted.kind in NAMED
        if at_place is not None and by_name and at_place.kind in NAMED and at_place.name != wanted.name:
            return f"calls parameter {place + 1} '{at_place.name}', upstream '{wanted.name}'"
        if by_name and wanted.name not in names and not kwargs:
            return f"does not take '{wanted.name}' by name"
    for wanted in theirs:
        if wanted.kind is Parameter.KEYWORD_ONLY and wanted.name not in names and not kwargs:
            return f"does not take '{wanted.name}' by name"
        if wanted.kind is Parameter.VAR_POSITIONAL and not args:
            return f"does not take *{wanted.name}"
        if wanted.kind is Parameter.VAR_KEYWORD and not kwargs:
            return f"does not take **{wanted.name}"
    required = {p.name for p in theirs if p.default is Parameter.empty and p.kind in (*POSITIONAL, *NAMED)}
    positional = [p for p in theirs if p.kind in POSITIONAL]
    for place, own in enumerate(mine):
        if own.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD) or own.default is not Parameter.empty:
            continue
        filled = own.name in required
        if own.kind is Parameter.POSITIONAL_ONLY:
            filled = place < len(positional) and positional[place].default is Parameter.empty
        if not filled:
            return f"needs '{own.name}', which upstream does not"
    return None


def problems(cls: type, listed: Collection[str], unrelated: Collection[str] = ()) -> list[str]:
    """What is wrong with the overrides of ``cls``.

    Args:
        cls: A class with a base from another package.
        listed: The methods and properties of ``cls`` that are meant to replace those of a base.
        unrelated: Those that have the name of one of a base and are not meant to be called in its place.
    """
    found = []
    for name in sorted(listed):
        base, ours = upstream_of(cls, name), vars(cls).get(name)
        if base is None:
            upstream = ", ".join(b.__name__ for b in foreign_bases(cls)) or "none"
            found.append(f"{cls.__name__}.{name} is listed as an override, but no upstream base has it ({upstream})")
        elif ours is None:
            found.append(f"{cls.__name__}.{name} is listed as an override, but {cls.__name__} does not define it")
        elif reason := incompatibility(ours, vars(base)[name]):
            found.append(f"{cls.__name__}.{name} {reason} ({base.__name__}.{name})")
    for name in sorted(overrides_of(cls) - set(listed) - set(unrelated)):
        found.append(f"{cls.__name__}.{name} replaces a method of a base and is not listed: list it, or rename it")
    return found
