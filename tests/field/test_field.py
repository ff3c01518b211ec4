"""Data sets as people have them: each is read rightly, or refused in one line that says what decides."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dfssd.datasets.records import DetectionSet
from dfssd.errors import UserError
from tests.configured import load_dataset
from tests.field.builders import NAMES, write_tree
from tests.field.case import Case, Refused, Taken
from tests.field.table import CASES
from tests.field.truth import false_labels

SPLITS = ("train", "val", "test")


def load(case: Case, folder: Path, data_dir: Path, *, backwards: bool = False) -> DetectionSet:
    """Build the case in ``folder`` and load it."""
    write_tree(case.build(), folder, backwards=backwards)
    arguments = {
        key: value.replace("{d}", str(folder)) if isinstance(value, str) else value
        for key, value in case.arguments.items()
    }
    return load_dataset(str(folder / case.source), data_dir, **arguments)


def outcome(case: Case, folder: Path, data_dir: Path, *, backwards: bool = False) -> Any:
    """What comes of a case, without the names of folders: problems, or labels, splits, roles and warnings."""
    try:
        dataset = load(case, folder, data_dir, backwards=backwards)
    except UserError as e:
        return [problem.replace(str(folder), "") for problem in e.problems]

    def inside(path: Path | None) -> str:
        return str(path).replace(str(folder), "").replace(str(data_dir), "")

    items = [
        (inside(item.source or item.image), None if item.boxes is None else item.boxes.tolist(), item.split)
        for item in dataset.items
    ]
    files = [(inside(file.path), file.role, file.reason.replace(str(folder), "")) for file in dataset.account.files]
    warnings = [warning.replace(str(folder), "") for warning in dataset.account.warnings]
    return dataset.names, sorted(items), sorted(files), sorted(warnings)


def check(dataset: DetectionSet, expected: Taken) -> None:
    """Hold a data set against what is expected of its case."""
    assert dataset.names == expected.names
    known = [item for item in dataset.items if item.boxes is not None]
    splits = Counter(item.split if item.split in SPLITS else "loose" for item in known)
    assert {key: splits[key] for key in (*SPLITS, "loose")} == {
        key: getattr(expected, key) for key in (*SPLITS, "loose")
    }
    assert len(dataset.items) - len(known) == expected.unlabeled
    assert sum(not len(item.boxes) for item in known) == expected.defect_free
    kinds = dataset.names if {*NAMES} <= {*dataset.names} and expected.shown == NAMES else expected.shown
    wrong = [line for item in known if len(item.boxes) for line in false_labels(item, kinds)]
    assert not wrong
    check_account(dataset, expected)


def check_account(dataset: DetectionSet, expected: Taken) -> None:
    """Each file has one role, and what should be said is said."""
    account = dataset.account
    assert account.counted == len(dataset.items) + len(account.files)
    assert len({file.path for file in account.files}) == len(account.files)
    assert not {file.path for file in account.files} & {item.source or item.image for item in dataset.items}
    assert all(bool(file.reason) == (file.role.value == "left out") for file in account.files)
    for words in expected.said:
        found = [line for line in account.warnings if all(word in line for word in words.split("|"))]
        assert found, (words, account.warnings)
    assert not any("\n" in line for line in account.warnings)
    if expected.quiet:
        assert account.warnings == ()
    reasons = {file.path.name: file.reason for file in account.left_out}
    for name, words in expected.left_out.items():
        assert words in reasons[name]
    roles = {role.value: number for role, number in account.roles().items()}
    assert expected.roles.items() <= roles.items()


@pytest.mark.parametrize("name", CASES)
def test_case(name, tmp_path) -> None:
    case = CASES[name]
    if isinstance(case.expected, Taken):
        check(load(case, tmp_path / "d", tmp_path / "sets"), case.expected)
        return
    with pytest.raises(UserError) as refusal:
        load(case, tmp_path / "d", tmp_path / "sets")
    [line] = refusal.value.problems
    assert "\n" not in line and str(tmp_path / "sets") not in line
    assert [word for word in case.expected.words if word not in line] == [], line


@pytest.fixture
def shuffled_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are listed in another order than the file system has."""
    scandir = os.scandir
    rng = random.Random(1)

    class Shuffled:
        def __init__(self, folder: Any = ".") -> None:
            with scandir(folder) as listing:
                self.entries = sorted(listing, key=lambda entry: entry.name if isinstance(entry.name, str) else "")
            rng.shuffle(self.entries)

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __next__(self) -> Any:
            if not self.entries:
                raise StopIteration
            return self.entries.pop()

        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            self.entries = []

    monkeypatch.setattr(os, "scandir", Shuffled)


ORDERED = [name for i, name in enumerate(CASES) if isinstance(CASES[name].expected, Refused) or i % 4 == 0]
"""Cases that are built twice: all refused ones, since a refusal names the first of several, and some of the others."""


@pytest.mark.parametrize("name", ORDERED)
def test_order_of_files_does_not_matter(name, tmp_path, shuffled_listing) -> None:
    case = CASES[name]
    one = outcome(case, tmp_path / "a" / "d", tmp_path / "sets")
    other = outcome(case, tmp_path / "b" / "d", tmp_path / "other sets", backwards=True)
    assert one == other
