"""What a case of the table is: a tree of files, how it is passed, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.field.builders import NAMES, Tree


@dataclass(frozen=True)
class Taken:
    """The data set is read, and each box is true.

    Attributes:
        train, val, test: Labeled or defect-free images that the source puts there.
        loose: Those without a split.
        unlabeled: Images without labels.
        defect_free: How many of the labeled ones have no boxes.
        names: Class names in id order.
        shown: What the pixels of each class look like, if the names do not say it.
        said: Words of a warning each; all words of one entry (separated by ``|``) occur in the same warning.
        left_out: Words of the reason why a file of that name is left out.
        roles: Number of files of a role, by the value of ``Role``.
        quiet: There must be no warning.
        below: Folder that all labeled images come from.
    """

    train: int = 0
    val: int = 0
    test: int = 0
    loose: int = 0
    unlabeled: int = 0
    defect_free: int = 0
    names: tuple[str, ...] = NAMES
    shown: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, int] = field(default_factory=dict)
    quiet: bool = False
    below: str = ""


@dataclass(frozen=True)
class Refused:
    """One line that contains all of ``words``: the files, and the argument that decides."""

    words: tuple[str, ...]


def refused(*words: str) -> Refused:
    """A refusal with these words."""
    return Refused(words)


SOUND = Taken(train=4, val=2, test=2)
"""What comes of :func:`tests.field.builders.sound`."""

LOOSE = Taken(loose=8)
"""What comes of :func:`tests.field.builders.loose`."""


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: Its name.
        build: Makes the files.
        expected: What has to come of them.
        source: What is passed, below the folder of the tree.
        arguments: Further arguments of ``load_dataset``; ``{d}`` stands for the folder.
    """

    name: str
    build: Callable[[], Tree]
    expected: Taken | Refused
    source: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def case(expected: Taken | Refused, source: str = "", name: str = "", **arguments: Any) -> Callable:
    """Enter the function below into the table, perhaps several times: with other arguments, under another ``name``."""

    def enter(build: Callable[[], Tree]) -> Callable[[], Tree]:
        key = name or build.__name__
        assert key not in CASES, key
        CASES[key] = Case(key, build, expected, source, arguments)
        return build

    return enter
