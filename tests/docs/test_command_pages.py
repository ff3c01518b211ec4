"""Every command has a page, with tables of what it takes and with what it has printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from dfssd.commands import COMMANDS
from tests.docs.test_links import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "command_pages.py"))
FOLDER = ROOT / "docs" / "commands"


def test_tables_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPT["main"]([]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_page_shows_the_line_its_output_and_the_options(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert f"\n# dfssd {name}\n" in text
    line = f"\n    dfssd {'' if name == 'train' else name}"
    assert line in text, "the line to type"
    assert re.search(r"^```text\n(?:.+\n)+", text, re.M), "what it prints"
    assert re.search(rf"<!-- (?:options of {name}( \w+)?|keys of a run) -->", text), "what it takes"
    assert "| exit code | meaning |" in text
    assert re.search(r"\]\(\.\./[\w-]+\.md", text), "a link to the page that says more"


def test_every_page_belongs_to_a_command() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == {*COMMANDS, "README"}


def test_a_changed_table_is_noticed_and_written(monkeypatch, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "docs" / "commands"
    folder.mkdir(parents=True)
    for page in FOLDER.glob("*.md"):
        (folder / page.name).write_bytes(page.read_bytes())
    page = folder / "predict.md"
    page.write_text(page.read_text(encoding="utf-8").replace("| `every` | `1`", "| `every` | `2`"), encoding="utf-8")
    (folder / "report.md").unlink()
    values = SCRIPT["main"].__globals__
    monkeypatch.setitem(values, "FOLDER", folder)
    monkeypatch.setitem(values, "ROOT", tmp_path)
    assert SCRIPT["main"]([]) == 2
    first, second = sorted(capsys.readouterr().err.splitlines())
    assert "predict.md is not up to date" in first and "report.md is missing" in second
    assert SCRIPT["main"](["--write"]) == 2
    assert page.read_bytes() == (FOLDER / "predict.md").read_bytes()


def test_marks_of_the_help_are_shown_as_text() -> None:
    assert SCRIPT["prose"]("mffmetal-<width>, *-sem.yaml | a_b") == r"mffmetal-&lt;width>, \*-sem.yaml, a\_b"
