"""What the section on whole images says where there is little to say."""

from __future__ import annotations

import pytest

from dfssd.reporting.operating import operating_section
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
        (0, 0, ["No validation image is free", "No test image is free"], "Only"),
        (0, 9, ["No validation image is free"], "No test image"),
        (20, 9, ["Only 20 validation images are free"], "No "),
        (100, 9, [], "free of defects"),
    ],
)
def test_few_good_images_are_mentioned(val: int, test: int, words: list[str], absent: str) -> None:
    text = section(with_good(recorded_run.results(), val=val, test=test))
    assert all(word in text for word in words) and absent not in text


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
