"""The example report: what today's report says about the recorded numbers, with its pictures, on generated images."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from PIL import Image

from dfssd.reporting.html import page
from dfssd.results.record import BoxRecord
from tests.detection.recorded_run import results, write_run
from tests.docs.test_links import ROOT

FOLDER = ROOT / "docs" / "example"
LARGEST = 1_500_000
"""Of the page, pictures included [bytes]."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict:
    """The names of the script, which keeps its example in a folder of the test."""
    names = runpy.run_path(str(ROOT / "scripts" / "example_report.py"))["main"].__globals__
    monkeypatch.setitem(names, "FOLDER", tmp_path / "example")
    monkeypatch.setitem(names, "photograph", lambda html: None)
    return names


def test_words_are_those_of_today() -> None:
    assert runpy.run_path(str(ROOT / "scripts" / "example_report.py"))["main"]([]) == 0


def test_page_has_all_pictures_and_is_small() -> None:
    text = (FOLDER / "report.md").read_text(encoding="utf-8")
    html = page(text, FOLDER)
    assert html.count('src="data:image/') == text.count("](plots/") > 10
    assert len(html.encode()) < LARGEST
    shown = {FOLDER / link.partition(")")[0] for link in text.split("](")[1:] if link.startswith("plots/")}
    assert {file for file in (FOLDER / "plots").rglob("*") if file.is_file()} == shown


@pytest.mark.parametrize("name", ["report-top.png", "report.png"])
def test_screenshots_are_small_and_as_wide_as_a_screen(name: str) -> None:
    file = ROOT / "docs" / "images" / name
    assert file.stat().st_size < 300_000
    assert Image.open(file).width == 1280


def test_example_is_a_run_of_generated_images_and_names_no_place_on_a_machine() -> None:
    record = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert record["data"]["name"] == "demo"
    for file in ("results.json", "files.json", "report.md"):
        text = (FOLDER / file).read_text(encoding="utf-8")
        assert [place for place in ("/home/", "/work/", "/root/", "/tmp/", "/Users/") if place in text] == [], file


def of_data(name: str) -> BoxRecord:
    record = results()
    assert record.data is not None
    return record.model_copy(update={"data": record.data.model_copy(update={"name": name})})


def test_run_of_the_demo_is_taken_and_of_other_data_is_not(script: dict, tmp_path: Path, capsys) -> None:
    assert script["main"]([str(write_run(tmp_path / "plates", of_data("plates")))]) == 2
    assert "is no run of data=demo" in capsys.readouterr().err
    assert not (tmp_path / "example").exists()
    run = write_run(tmp_path / "quick", of_data("demo"))
    assert script["main"]([str(run)]) == 0
    report = tmp_path / "example" / "report.md"
    text = report.read_text(encoding="utf-8")
    assert (
        text.startswith("# quick: what the run found") and (tmp_path / "example" / "plots" / "pr_curves.png").is_file()
    )
    assert script["main"]([]) == 0
    report.write_text(text.replace("what the run found", "what was found"), encoding="utf-8")
    assert script["main"]([]) == 2
    assert "not up to date" in capsys.readouterr().err
    assert script["main"](["--write"]) == 0
    assert report.read_text(encoding="utf-8") == text
