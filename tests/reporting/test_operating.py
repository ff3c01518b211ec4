"""What the section on whole images says where there is little to say."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dfssd.detection.verdict import closing_table
from dfssd.reporting.operating import operating_section, unresolved
from dfssd.results.record import BoxRecord
from tests.detection import recorded_run
from tests.reporting.records import changed, without


def section(record: BoxRecord) -> str:
    return "\n".join(operating_section(record, {"baseline": "baseline", "student": "student"}, "score"))


def with_good(record: BoxRecord, *, val: int, test: int) -> BoxRecord:
    """The record with so many good images in both parts, none of them called."""
    tree = record.to_json()
    for operating in tree["operating"].values():
        for point in operating["points"]:
            for part, good in (("val", val), ("test", test)):
                rate = {"value": 0.0, "low": 0.0, "high": 1.0} if good else None
                point[part] |= {"good": good, "false_alarms": 0, "false_alarm_rate": rate}
    return BoxRecord.model_validate(tree)


def test_no_section_in_a_record_of_an_earlier_version() -> None:
    assert section(without(recorded_run.results(), "operating")) == ""


@pytest.mark.parametrize(
    ("val", "test", "words", "absent"),
    [
        (0, 0, ["No validation image is free", "No test image is free", "(n=0): "], "(n=1"),
        (0, 9, ["No validation image is free"], "No test image"),
        (
            2,
            9,
            ["† Too few good images to resolve this rate (n=2): ", "1 % takes 100, 2 % takes 50, 5 % takes 20 of"],
            "No ",
        ),
        (20, 9, ["(n=20): ", "1 % takes 100, 2 % takes 50 of them"], "5 % takes"),
        (99, 9, ["(n=99): ", "1 % takes 100 of them"], "2 % takes"),
        (100, 9, [], "†"),
    ],
)
def test_few_good_images_are_mentioned(val: int, test: int, words: list[str], absent: str) -> None:
    text = section(with_good(recorded_run.results(), val=val, test=test))
    assert all(word in text for word in words) and absent not in text


def test_rates_that_too_few_images_resolve_are_marked_wherever_they_stand() -> None:
    """In the table of each network, and over the thresholds; the balanced ones promise no rate."""
    text = section(with_good(recorded_run.results(), val=20, test=9))
    assert text.count("at most 1 % † |") == 3 and text.count("**at most 2 %** † |") == 3
    assert "at most 5 % |" in text and "balanced |" in text


@pytest.mark.parametrize(("wanted", "good", "said"), [(0.02, 49, True), (0.02, 50, False), (None, 2, False)])
def test_terminal_warns_of_the_rate_that_was_asked_for(wanted: float | None, good: int, said: bool) -> None:
    record = changed(with_good(recorded_run.results(), val=good, test=9), "operating.student", wanted=wanted)
    lines = list(unresolved(record))
    assert bool(lines) is said
    if said:
        assert lines[0].startswith(
            "false_alarms=0.02: too few good images to resolve this rate (n=49), it takes 50 in "
        )
        out = io.StringIO()
        closing_table(record, Console(file=out, width=300))
        assert lines[0] in out.getvalue()


def test_unknown_rates_are_dashes() -> None:
    text = section(with_good(recorded_run.results(), val=0, test=0))
    assert "| 0 of 0" not in text and text.count(" | - |") == 8


def test_network_that_was_not_measured_has_no_row() -> None:
    text = section(without(recorded_run.results(), "operating.baseline"))
    assert "| baseline |" not in text and "| student |" in text


def test_thresholds_that_go_with_the_student_are_bold() -> None:
    record = recorded_run.results()
    assert section(record).count("**at most 2 %**") == 3, "two networks and the table of thresholds"
    record = changed(record, "operating.student", wanted=None)
    assert section(record).count("**balanced**") == 2
