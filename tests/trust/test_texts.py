"""Names from outside are shown as they are, in Markdown, HTML, and tables, and do nothing there."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from dfssd.detection import report
from dfssd.reporting.html import page
from dfssd.reporting.tables import csv_text, markdown_table
from dfssd.results.record import BoxRecord
from dfssd.trust.texts import code_block, in_markdown, in_table
from tests.reporting.scenarios import SCENARIOS

NAMES = (
    "<script>alert(1)</script>",
    "![x](http://example.com/x.png)",
    "[x](http://example.com)",
    "<http://example.com>",
    "a | b | c",
    "*bold* __bold__ _italic_ `code` ~~gone~~",
    "&lt;img src=x onerror=alert(1)&gt;",
    "back\\slash\\",
    "two\nlines\n# and a heading",
    "# heading",
    "oil_spots 2.5 (new) - 1",
)


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    shown = name.replace("\n", "\\n")
    for text in (in_markdown(name), f"- {in_markdown(name)}.", f"**{in_markdown(name)}** is one"):
        tokens = [own for token in reader.parse(text) for own in (token.children or [])]
        assert {token.type for token in tokens} <= {"text", "text_special", "strong_open", "strong_close"}
        assert shown in "".join(token.content for token in tokens)
    rows = reader.parse("\n".join(markdown_table(["class", "score"], [[in_markdown(name), "1"]])))
    cells = [token.children for token in rows if token.type == "inline"]
    assert len(cells) == 4 and "".join(token.content for token in cells[2] or []) == shown


def test_names_without_markup_stay_readable() -> None:
    for name in ("scratch", "oil_spots", "class 1", "ölfleck (groß)", "10-2"):
        assert in_markdown(name) == name


def test_a_command_is_shown_whatever_it_holds() -> None:
    for command in ("dfssd data=x", "dfssd name='```\n# x'", "`````"):
        tokens = MarkdownIt("commonmark").parse("\n".join(code_block(command)))
        assert [token.type for token in tokens] == ["fence"]
        assert tokens[0].content == command.replace("\n", "\\n") + "\n"


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "=HYPERLINK(1)"]
)
def test_a_spreadsheet_gets_no_formula(cell: str) -> None:
    assert in_table(cell) == f"'{cell}"
    [row] = csv.DictReader(io.StringIO(csv_text([{"class": cell, "n": 1, "x": -0.5}], show=str)))
    assert row == {"class": f"'{cell}", "n": "1", "x": "-0.5"}


@pytest.mark.parametrize(
    "cell", ["-", "-0.014", "+0.03", "-0.014 [-0.041, +0.011]", "+1e-05", "-12 %".replace(" ", ""), "", "a=b", 3, None]
)
def test_numbers_and_other_texts_stay_as_they_are(cell: object) -> None:
    assert in_table(cell) == cell


def renamed(record: BoxRecord, names: dict[str, str]) -> BoxRecord:
    """A record whose classes are called otherwise, wherever they are named."""
    text = json.dumps(record.to_json())
    for old, new in names.items():
        text = text.replace(json.dumps(old), json.dumps(new))
    return BoxRecord.model_validate_json(text)


def test_a_report_on_classes_with_such_names(tmp_path: Path) -> None:
    """Its page has no link, picture, or script of theirs, and its tables as many columns as before."""
    scenario = SCENARIOS["boxes-full"]()
    assert isinstance(scenario.run.record, BoxRecord)
    usual = report.words(scenario.run, scenario.drawn)
    names = dict(zip(scenario.run.record.data.classes, NAMES))
    record = renamed(scenario.run.record, names)
    record = record.model_copy(update={"data": record.data.model_copy(update={"warnings": NAMES})})
    record = record.model_copy(update={"run": record.run.model_copy(update={"command": "```\n".join(NAMES)})})
    text = report.words(replace(scenario.run, record=record, folder=tmp_path / NAMES[5]), scenario.drawn)
    html, before = page(text, tmp_path), page(usual, tmp_path)
    for tag in ("<a ", "<img", "<script", "<em>", "<h1", "<h2", "<del", "<hr"):
        assert html.count(tag) == before.count(tag), tag
    assert html.count("<td") == before.count("<td")
    shown = re.sub(r"<[^>]*>", "", html)
    for name in list(names.values())[:5]:
        assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in shown


def test_a_picture_comes_from_the_run_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG")
    (tmp_path / "run" / "plots").mkdir(parents=True)
    (tmp_path / "run" / "plots" / "own.png").write_bytes(b"\x89PNG")
    for place, count in (("plots/own.png", 1), ("../secret.png", 0), (str(secret), 0)):
        assert page(f"# x\n\ny\n\n## z\n\n![z]({place})", tmp_path / "run").count("data:image/png") == count
