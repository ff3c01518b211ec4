"""Numbers with their nouns: by hand, and in all messages of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfssd.wording import are, counted, have, plural, short_paths
from tests.source_tree import PACKAGE, sources, tree

NOUNS = (
    "image", "box", "problem", "file", "class", "copy", "label", "line", "row", "network", "run", "epoch", "batch",
    "step", "pair", "mask", "cell", "folder", "annotation", "object", "defect", "frame", "format", "name", "group",
    "part", "region", "point", "prediction", "task", "value", "reason", "page", "warning", "person", "error", "column",
    "seed", "teacher",
)  # fmt: skip

ADJECTIVES = ("labeled", "unlabeled", "test", "training", "validation", "optimizer", "class", "listed", "other", "more",
              "different", "good", "defective", "new", "ignored", "unusable", "whole")  # fmt: skip

SURE = {
    "EXHAUSTIVE": "a constant",
    "LEAST_STEPS": "a constant",
    "format_number(images[0]) if len(images) == 1 else 'several'": "a test part of one image gives no interval",
    "len(line.rows)": "only where there are several",
    "settings.teachers": "only where there are several",
    "pages": "only where there are several",
    "most": "its singular is in the same line",
    "named": "val or test",
    "kind": "integers or floats",
    "kinds": "adjectives",
    "entry": "a path",
    "place": "a place",
}
"""Expressions in front of a plural that are never 1, or no number, and why."""


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "test image", "2 test images"),
        (1, "box", "1 box"),
        (3, "box", "3 boxes"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (2, "epoch", "2 epochs"),
        (2, "copy", "2 copies"),
        (2, "day", "2 days"),
        (12345, "pixel", "12,345 pixels"),
    ],
)
def test_counted(n: int, noun: str, text: str) -> None:
    assert counted(n, noun) == text


def test_more_of_the_sentence() -> None:
    assert (
        counted(1, "image is", "images are") == "1 image is" and counted(0, "image is", "images are") == "0 images are"
    )
    assert [are(0), are(1), have(1), have(2)] == ["are", "is", "has", "have"]


@pytest.mark.parametrize(
    ("files", "folders", "shown"),
    [
        (["/d/train/a.jpg", "/d/val/a.jpg"], 1, ["train/a.jpg", "val/a.jpg"]),
        (["/d/train/images/a.jpg", "/d/val/images/a.jpg"], 1, ["train/images/a.jpg", "val/images/a.jpg"]),
        (["/d/images/a.jpg", "/d/images/b.jpg"], 1, ["images/a.jpg", "images/b.jpg"]),
        (["/d/images/a.jpg", "/d/images/b.jpg"], 0, ["a.jpg", "b.jpg"]),
        (["/d/1/a.jpg", "/d/2/a.jpg"], 0, ["1/a.jpg", "2/a.jpg"]),
        (["/x/a.jpg", "/a.jpg"], 1, ["/x/a.jpg", "/a.jpg"]),
        (["/x/a.jpg", "/x/a.jpg"], 1, ["x/a.jpg", "x/a.jpg"]),
        ([], 1, []),
    ],
)
def test_files_can_be_told_apart(files: list[str], folders: int, shown: list[str]) -> None:
    assert [path.lstrip("/") for path in short_paths([*map(Path, files)], folders)] == [p.lstrip("/") for p in shown]


def bare_numbers(code: ast.AST) -> Iterator[tuple[str, str]]:
    """Numbers of f-strings that a plural follows: the expression, and the text behind it."""
    plurals, adjectives = "|".join(map(plural, NOUNS)), "|".join(ADJECTIVES)
    for text in ast.walk(code):
        if not isinstance(text, ast.JoinedStr):
            continue
        for value, behind in zip(text.values, text.values[1:], strict=False):
            if isinstance(value, ast.FormattedValue) and isinstance(behind, ast.Constant):
                found = re.match(rf" (?:(?:{adjectives}) )*({plurals})\b(?![/=])", str(behind.value))
                if found:
                    yield ast.unparse(value.value), found[0]


def test_the_scan_finds_bare_numbers() -> None:
    code = "f'{n} images', f'{len(x):,} unlabeled images, {k} boxes', f'{name} of images', f'{n} px', f'{r} images/s'"
    found = [("n", " images"), ("len(x)", " unlabeled images"), ("k", " boxes")]
    assert list(bare_numbers(ast.parse(code))) == found


def test_no_message_counts_without_the_singular() -> None:
    """Write them with :func:`dfssd.wording.counted`, or say in :data:`SURE` why the number is never 1."""
    found = {source: list(bare_numbers(tree(source))) for source in sources()}
    wrong = [
        f"{source.relative_to(PACKAGE)}: {{{number}}}{text}"
        for source, numbers in found.items()
        for number, text in numbers
        if number not in SURE
    ]
    assert not wrong
    assert {number for numbers in found.values() for number, _ in numbers} == set(SURE), "an exception of nothing"
