"""Every word of a report, of its headline and of the closing table, as it was last approved.

A difference is a failure. Where it is wanted, approve it, and look at what ``git diff tests/approved`` shows::

    DFSSD_APPROVE=1 python -m pytest tests/test_golden_reports.py
"""

from __future__ import annotations

import difflib
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from dfssd.detection import report as boxes
from dfssd.detection import verdict as boxes_verdict
from dfssd.segmentation import report as masks
from dfssd.segmentation import verdict as masks_verdict
from tests.detection import recorded_run as recorded_boxes
from tests.reporting.scenarios import SCENARIOS, Scenario
from tests.segmentation import recorded_run as recorded_masks

APPROVED = Path(__file__).parent / "approved"


def written(scenario: Scenario, kind: str) -> str:
    """All texts about a run: report, headline, and the last lines in the terminal, without colors."""
    report, verdict = (boxes, boxes_verdict) if kind == "boxes" else (masks, masks_verdict)
    text, out = report.words(scenario.run, scenario.drawn), io.StringIO()
    verdict.closing_table(scenario.run.record, Console(file=out, width=120, color_system=None))
    closing = "\n".join(line.rstrip() for line in out.getvalue().splitlines())
    headline = verdict.headline(scenario.run.record)
    return f"{text}\n# Headline\n\n{headline}\n\n# Terminal\n\n```\n{closing}\n```\n"


def difference(approved: str, now: str, name: str) -> str:
    """Unified diff of two texts, empty if they are equal."""
    lines = (approved.splitlines(), now.splitlines())
    return "\n".join(difflib.unified_diff(*lines, f"approved/{name}.md", "now", lineterm=""))


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_report_is_the_approved_one(name):
    now, file = written(SCENARIOS[name](), name.partition("-")[0]), APPROVED / f"{name}.md"
    if os.environ.get("DFSSD_APPROVE"):
        file.write_text(now, encoding="utf-8")
    approved = file.read_text(encoding="utf-8") if file.is_file() else ""
    if changed := difference(approved, now, name):
        pytest.fail(f"{changed}\n\nIf this is wanted: DFSSD_APPROVE=1 python -m pytest {Path(__file__).name}", False)


@pytest.mark.parametrize(("name", "report"), [("boxes-full", boxes), ("masks-official-leaks", masks)])
def test_run_folder_gives_the_same_report_with_all_its_figures(name, report, tmp_path):
    """Files in, files out: what :func:`words` gets above is what is read and drawn."""
    scenario, folder = SCENARIOS[name](), tmp_path / "run"
    recorded = recorded_boxes if report is boxes else recorded_masks
    recorded.write_run(folder, scenario.run.record)
    if report is masks:
        (folder / "splits").mkdir()
        (folder / "splits" / "test_leaks.txt").write_text("\n".join(recorded_masks.NAMED))
    for _ in range(1 if report is boxes else 2):  # it can be written again
        report.write_report(folder)
        text = (folder / "report.md").read_text(encoding="utf-8")
        assert (APPROVED / f"{name}.md").read_text(encoding="utf-8").startswith(f"{text}\n# Headline")
    assert {path.stem for path in (folder / "plots").iterdir()} == set(scenario.drawn)
    assert all(f"(plots/{figure}.png)" in text for figure in scenario.drawn)
    assert str(tmp_path) not in text
    assert not list(folder.rglob("*.part*"))


def test_every_approved_file_has_its_scenario():
    assert {path.stem for path in APPROVED.glob("*.md")} == set(SCENARIOS)


def test_a_changed_word_is_shown():
    changed = difference("one\ntwo\nthree\n", "one\n2\nthree\n", "any")
    assert changed.splitlines() == ["--- approved/any.md", "+++ now", "@@ -1,3 +1,3 @@", " one", "-two", "+2", " three"]
    assert difference("one\n", "one\n", "any") == ""
