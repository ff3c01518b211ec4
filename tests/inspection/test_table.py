"""The table of a data set, on the console and in the log."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
from rich.console import Console

from dfssd.datasets.account import Account, Accounted, Role
from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.splits import Split
from dfssd.inspection.report import DataReport, inspect_data
from dfssd.inspection.table import describe_data, log_report, print_report
from tests.inspection.material import report

TABLE = """\
mine: 6 images, 2 classes (dark, bright)
13 files: 6 images, 2 labels, 1 class list, 4 left out; besides, not part of the data: 2 hidden

                                train  val  test  all
images                              4    1     1    6
  labeled                           1    1     1    3
  defect-free                       1    -     -    1
  unlabeled                         2    -     -    2
  trained without their labels      1    -     -    1
boxes                               2    1     2    5
  dark                              1    -     1    2
  bright                            1    1     1    3

left out, 2: is neither an image nor a label (mine/notes.docx, mine/more.docx)
left out, 1: is a copy of a labeled image, or of one in val or test (mine/v.png)
left out, 1: has no labels, but belongs to test (mine/w.png)
copies: 2 images repeating others in 1 group, 1 of them split between train and val or test (mine/a.png = mine/copy.png)
"""


def printed(found: DataReport, width: int = 200) -> list[str]:
    text = io.StringIO()
    print_report(found, Console(file=text, width=width))
    return text.getvalue().splitlines()


def many_classes(folder: Path, n: int) -> DataReport:
    """``n`` classes, class ``i`` with ``i + 1`` boxes; and 15 files left out for 11 reasons."""
    names = tuple(f"class {i:02d}" for i in range(n))
    ids = np.concatenate([np.full(i + 1, i) for i in range(n)])
    rows = np.column_stack([ids, np.full((len(ids), 4), 0.5)]).astype(np.float32)
    items = (Item(folder / "a.png", rows, None, size=(64, 64)), Item(folder / "b.png", rows[:0], None, size=(64, 64)))
    left = [Accounted(folder / f"{i}.x", Role.LEFT_OUT, f"reason {i}") for i in range(10)]
    left += [Accounted(folder / f"common {i}.x", Role.LEFT_OUT, "common") for i in range(5)]
    data = DetectionSet("wide", names, items, account=Account(tuple(left), counted=17))
    return inspect_data(data, Split((items[0].image,), (), (items[1].image,), ()), range(2))


def test_warnings_come_first_then_the_table(tmp_path: Path) -> None:
    found = report(tmp_path)
    lines = printed(found)
    n = len(found.warnings)
    assert lines[:n] == [f"warning: {text}" for text in found.warnings] and n == 3
    assert [line.rstrip() for line in lines[n:]] == TABLE.splitlines()


def test_what_is_plain_in_a_pipe_is_not_wrapped(tmp_path: Path, capsys) -> None:
    found = report(tmp_path)
    print_report(found)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and shown.count("\n") == len(found.warnings) + len(TABLE.splitlines())


def test_names_are_no_markup(tmp_path: Path) -> None:
    found = report(tmp_path, name="[red]set[/red]", names=("[bold]a", ":smile:\x1b[2J\nb"))
    lines = printed(found)
    assert len(lines) == len(found.warnings) + len(TABLE.splitlines()) and "\x1b" not in "".join(lines)
    for name in ("[red]set[/red]: 6 images", "  [bold]a ", "  :smile:?[2J?b "):
        assert any(line.startswith(name) for line in lines)


def test_images_in_no_part_have_a_column(tmp_path: Path) -> None:
    found = many_classes(tmp_path, 2)
    assert not any("not used" in line for line in printed(found))
    a, b = found.dataset.items
    partly = inspect_data(found.dataset, Split((a.image,), (), (), ()), range(2))
    head, images = [line.split() for line in printed(partly) if line.startswith((" " * 8, "images"))][:2]
    assert head == ["train", "val", "test", "not", "used", "all"] and images == ["images", "1", "-", "-", "1", "2"]
    assert b.image.name == "b.png"


def test_the_log_is_shorter(tmp_path: Path) -> None:
    found = many_classes(tmp_path, 20)
    shown = printed(found)
    assert sum(line.startswith("  class ") for line in shown) == 20
    assert sum(line.startswith("left out") for line in shown) == 11
    lines = describe_data(found)
    classes = [line.split()[:2] for line in lines if line.startswith("  class ")]
    assert classes == [["class", f"{i:02d}"] for i in range(19, 8, -1)]  # those with the most boxes
    assert [line.split() for line in lines if "other classes" in line] == [
        ["9", "other", "classes", "45", "-", "-", "45"]  # 1 + 2 + ... + 9 boxes
    ]
    left = [line for line in lines if line.startswith("left out")]
    named = ", ".join(f"{tmp_path.name}/common {i}.x" for i in range(3))
    assert left[0] == f"left out, 5: common ({named}, and 2 more)"
    assert len(left) == 6 and left[-1] == "left out, 6: 6 other reasons; dfssd check data=... lists them"


def test_log_has_warnings_as_such(tmp_path: Path, caplog) -> None:
    found = report(tmp_path)
    logger = logging.getLogger("dfssd")
    logger.addHandler(caplog.handler)
    try:
        log_report(found)
    finally:
        logger.removeHandler(caplog.handler)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    rest = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert warnings == list(found.warnings) and rest == describe_data(found)
    assert rest == [line for line in TABLE.splitlines() if line]
