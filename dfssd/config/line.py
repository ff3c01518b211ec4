"""A resolved command line, as the rules read it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class WrongValueError(Exception):
    """A rule has read a key whose value is not usable."""


class ValidKeys(Mapping[str, Any]):
    """Resolved keys; reading one with a wrong value ends the rule that reads it."""

    def __init__(self, values: Mapping[str, Any], wrong: Collection[str]):
        """Wrap ``values``, of which those of the keys in ``wrong`` must not be read."""
        self._values, self._wrong = values, frozenset(wrong)

    def __getitem__(self, key: str) -> Any:
        """Value of ``key``."""
        if key in self._wrong:
            raise WrongValueError(key)
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        """All keys."""
        return iter(self._values)

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._values)


@dataclass(frozen=True)
class CommandLine:
    """A resolved command line, the input of the rules.

    Attributes:
        own: Our keys, complete.
        given: What the user typed.
        recipe: Keys of the recipe, flat, without its terms.
        recipe_terms: Options of its terms, flat.
        train: Ultralytics' arguments, complete.
        terms: Active terms with their options.
        defaults: The keys of both kinds with their defaults.
        known_terms: Options of every registered term.
        feature_terms: Names of the terms that compare feature maps; one that was not loaded may.
        schedules: Names of the registered schedules.
    """

    own: Mapping[str, Any]
    given: Mapping[str, Any]
    recipe: Mapping[str, Any]
    recipe_terms: Mapping[str, Any]
    train: Mapping[str, Any]
    terms: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any]
    known_terms: Mapping[str, Mapping[str, Any]]
    feature_terms: Collection[str]
    schedules: Collection[str]

    @property
    def task(self) -> str:
        """The task of the run."""
        return str(self.own["task"])

    @property
    def method(self) -> str:
        """How the student is trained."""
        return str(self.own["student_training"])

    def is_default(self, key: str) -> bool:
        """Whether a key of either kind has its default, typed or not."""
        return bool(self.value(key) == self.defaults[key])

    def value(self, key: str) -> Any:
        """Value of a key of either kind."""
        return self.own[key] if key in self.own else self.train[key]
