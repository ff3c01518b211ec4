"""Damaged data sets, whatever the damage: a sound data set or problems of one line each, never another exception.

``HYPOTHESIS_PROFILE=search pytest tests/field/test_fuzz.py`` looks for counterexamples by the thousand.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, given, note, settings

from dfssd.datasets.records import DetectionSet
from dfssd.errors import UserError
from tests.configured import load_dataset
from tests.field.builders import Tree, raw
from tests.field.damage import IN_FILE, SOUND, archives, damaged, damages, rearranged
from tests.field.truth import false_labels, looks

SEARCH = os.environ.get("HYPOTHESIS_PROFILE") == "search"


def examples(number: int) -> settings:
    """So many examples, the same ones in every run; by the thousand where counterexamples are searched."""
    return settings(
        max_examples=3000 if SEARCH else number,
        derandomize=not SEARCH,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def write(tree: Tree, root: Path) -> None:
    """Write what the file system takes; a name that is both a file and a folder is left out."""
    root.mkdir()
    for path, content in tree.items():
        target = root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(raw(content))
        except OSError:
            event("a file that cannot exist")


def check_sound(dataset: DetectionSet) -> None:
    """Boxes lie in their images, ids have names, each file has a role."""
    assert dataset.items and dataset.account.counted == len(dataset.items) + len(dataset.account.files)
    assert all(len(warning.splitlines()) == 1 for warning in dataset.account.warnings)
    for boxes in (item.boxes for item in dataset.items if item.boxes is not None):
        centers, half = boxes[:, 1:3], boxes[:, 3:] / 2
        assert np.isfinite(boxes).all() and (half > 0).all()
        assert (centers - half >= -1e-6).all() and (centers + half <= 1 + 1e-6).all()
        assert set(boxes[:, 0].tolist()) <= set(range(len(dataset.names)))


def check_loading(tree: Tree, source: str = "", *, true: bool = False, **arguments: Any) -> None:
    """Load a tree: the data set is sound (its boxes are ``true`` of the pixels), or its problems have one line each."""
    with tempfile.TemporaryDirectory() as folder:
        write(tree, Path(folder, "d"))
        problems: tuple[str, ...] = ()
        try:
            dataset = load_dataset(str(Path(folder, "d", source)), Path(folder, "sets"), **arguments)
        except UserError as e:
            problems = e.problems
            assert problems
        if problems:
            event("refused")
            note("\n".join(problems))
            assert all(line.strip() and len(line.splitlines()) == 1 for line in problems)
        else:
            event("taken")
            check_sound(dataset)
            labeled = [item for item in dataset.items if true and item.boxes is not None and len(item.boxes)]
            assert [line for item in labeled for line in false_labels(item, looks(dataset.names))] == []


@examples(100)
@given(damaged)
def test_damaged_folders(source) -> None:
    check_loading(source.tree())


@examples(40)
@given(damaged)
def test_damaged_folders_that_are_to_be_read_nevertheless(source) -> None:
    check_loading(source.tree(), skip_bad=True, names=["bright", "dark"], missing_label="background")


@examples(60)
@given(rearranged)
def test_rearranged_folders_are_never_misread(source) -> None:
    """Whatever is moved, copied, or removed: boxes are true, or the data is refused."""
    check_loading(source.tree(), true=True)


@examples(40)
@given(damages(IN_FILE))
def test_damaged_descriptions(damage) -> None:
    """A data set YAML passed as such."""
    text = damage.changed(raw(SOUND["yaml"]["data.yaml"]))
    check_loading({**SOUND["yaml"], "data.yaml": text}, "data.yaml")


@examples(40)
@given(archives)
def test_damaged_archives(archive) -> None:
    check_loading({"set.zip": archive.file()}, "set.zip")
