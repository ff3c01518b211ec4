"""Is this the same configuration? One comparison for resumed runs, baselines of other runs, protocols and grids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

UNSET = "not set"
"""Stands for a key that one of the two does not have, where None is a value of its own."""


class Difference(NamedTuple):
    """A key whose value differs.

    Attributes:
        key: Its dotted name.
        then: The recorded value.
        now: The value asked for.
    """

    key: str
    then: Any
    now: Any


def flat_settings(
    own: Mapping[str, Any], terms: Mapping[str, Mapping[str, Any]], train: Mapping[str, Any]
) -> dict[str, Any]:
    """Our keys, options of active terms (``<term>.<option>``) and Ultralytics' arguments in one flat dict."""
    options = {f"{term}.{option}": value for term, values in terms.items() for option, value in values.items()}
    return {**own, **options, **train}


def differences(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    keys: Iterable[str] | None = None,
    ignoring: Collection[str] = (),
    missing: Any = None,
) -> list[Difference]:
    """What differs between a recorded configuration and the one asked for.

    Args:
        then: Recorded settings, flat.
        now: Settings asked for, flat.
        keys: Compare these keys only; None: those of both.
        ignoring: Keys that may differ.
        missing: Stands for the value of a key that is not there; the weight of a term that is not there is 0.

    Returns:
        The differences, in alphabetical order of their keys.
    """
    found = []
    for key in sorted(set({*then, *now} if keys is None else keys) - set(ignoring)):
        absent = 0 if key.endswith(".weight") and missing is None else missing
        old, new = then.get(key, absent), now.get(key, absent)
        if old != new:
            found.append(Difference(key, old, new))
    return found
