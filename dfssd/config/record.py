"""Comparison of two configurations, for resumed runs, baselines of other runs, protocols and grids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

UNSET = "not set"
"""Placeholder for a key that one of the two lacks, where None is a value of its own."""


class Difference(NamedTuple):
    """A key whose value differs.

    Attributes:
        key: Its dotted name.
        then: The recorded value.
        now: The requested value.
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
    """What differs between a recorded configuration and the requested one.

    Args:
        then: Recorded settings, flat.
        now: Requested settings, flat.
        keys: Compare these keys only; None: those of both.
        ignoring: Keys that may differ.
        missing: Value of an absent key; if None, the weight of an absent term is 0.

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
