"""The lab book: each command runs cells and seeds of its grid, and each cell of the screen has its row."""

from __future__ import annotations

import re

from dfssd.benchmark.grid import Grid
from dfssd.config import parse_arguments
from tests.docs.test_links import ROOT

BOOK = (ROOT / "benchmarks" / "lab.md").read_text(encoding="utf-8")
HEAD = ["cell", "why", "command", "expected", "result", "commit"]
COMMIT = re.compile(r"-|[0-9a-f]{7,40}(?:, [0-9a-f]{7,40})*")


def rows_of(book: str) -> list[tuple[str, list[str]]]:
    """The rows of the tables of cells, each with the grid of its section."""
    found = []
    for section in book.split("\n## ")[1:]:
        [grid] = re.findall(r"^    python scripts/benchmark\.py (\S+) .*\.\.\.$", section, re.M)
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"]
        assert lines[0] == HEAD
        found += [(grid, line) for line in lines[2:]]
    return found


def problems(book: str) -> list[str]:
    """What is wrong with the rows of a book."""
    bad = []
    for grid, (cell, why, command, expected, result, commit) in rows_of(book):
        given = parse_arguments(command.strip("`").split())
        name = cell.strip("`")
        own = Grid.read(ROOT / grid, seeds=given.get("seeds"), labeled=given.get("labeled"))
        if name not in {run.cell for run in own.select(given["only"])}:
            bad.append(f"{name}: not run by {command}")
        if not why or not expected or expected == "-":
            bad.append(f"{name}: nothing is asked or expected")
        if not COMMIT.fullmatch(commit) or (result == "-") != (commit == "-"):
            bad.append(f"{name}: result {result} of commit {commit}")
    return bad


def test_rows_can_be_run_and_are_complete() -> None:
    assert len(rows_of(BOOK)) > 10 and problems(BOOK) == []


def test_screen_has_a_row_for_each_cell() -> None:
    screen = "benchmarks/cr7-det-160.yaml"
    named = [row[0].strip("`") for grid, row in rows_of(BOOK) if grid == screen]
    assert sorted(named) == sorted(Grid.read(ROOT / screen).cells)


def test_mistakes_are_noticed() -> None:
    row = next(line for line in BOOK.splitlines() if line.startswith("| `round` |"))
    head, expected, _, _ = (part.strip() for part in row.strip("|").rsplit("|", 3))
    new = f"| {head} | {expected} |"
    for wrong, message in [
        (f"{new} - | - |".replace("only=round`", "only=online`"), "round: not run by"),
        (f"{new} +0.02 | - |", "round: result"),
        (f"{new} +0.02 | yesterday |", "round: result"),
        (f"| {head} | - | - | - |", "round: nothing is asked or expected"),
    ]:
        assert [problem for problem in problems(BOOK.replace(row, wrong)) if problem.startswith(message)], wrong
    for right in (f"{new} - | - |", f"{new} val +0.020 [+0.010, +0.030] (3 of 3) | 1a2b3c4, 5d6e7f8 |"):
        assert problems(BOOK.replace(row, right)) == []
