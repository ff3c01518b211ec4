"""What a report advises, and when it is silent."""

from __future__ import annotations

import pytest

from dfssd.detection.advice import advice_section
from dfssd.results.record import BoxRecord
from tests.detection import recorded_run
from tests.reporting.records import changed, without


def settled() -> BoxRecord:
    """A run of which there is nothing to say: a good teacher, a best epoch in the middle, even classes, many images."""
    record = recorded_run.results(student=0.6, baseline=0.5, teacher=0.7)
    for role in ("teacher", "student", "baseline"):
        record = changed(record, f"training.{role}", best_epoch=20)
    tree = record.to_json()
    for scores in tree["test"].values():
        scores["instances"] = 500
        for own in scores["per_class"].values():
            own["ap50_95"] = own["ap50_95"] and 0.6
    for point in tree["operating"]["student"]["points"]:
        point["val"]["good"] = 200
    return BoxRecord.model_validate(tree)


def advice(record: BoxRecord) -> str:
    return "\n".join(advice_section(record))


def test_nothing_stands_out() -> None:
    text = advice(settled())
    assert "Nothing stands out" in text and "- **" not in text


@pytest.mark.parametrize("best", [28, 30])
def test_student_that_still_improves(best: int) -> None:
    text = advice(changed(settled(), "training.student", best_epoch=best))
    assert "The student was still improving" in text and "`epochs=60`" in text and text.count("- **") == 1


def test_early_stop_is_not_too_short_a_training() -> None:
    assert "Nothing" in advice(changed(settled(), "training.student", best_epoch=28, epochs=100))


def test_teacher_alone_that_still_improves() -> None:
    text = advice(changed(settled(), "training.teacher", best_epoch=30))
    assert "The teacher was still improving" in text and "`teacher_epochs`" in text


def test_teacher_as_good_as_the_baseline() -> None:
    text = advice(changed(settled(), "test.teacher", map50_95=0.505))
    assert "**A better teacher.** It has 0.505" in text


def test_teacher_that_was_given_is_not_to_be_trained_longer() -> None:
    assert "Nothing" in advice(without(changed(settled(), "test.teacher", map50_95=0.505), "training.teacher"))


def test_weak_classes_are_named_weakest_first() -> None:
    record = settled()
    for name, value in (("pits", 0.2), ("linear", 0.1)):
        record = changed(record, f"test.student.per_class.{name}", ap50_95=value)
    assert "**Labels of the weak classes**: linear (0.100), pits (0.200), where" in advice(record)


@pytest.mark.parametrize(("good", "said"), [(0, True), (99, True), (100, False)])
def test_few_good_images(good: int, said: bool) -> None:
    tree = settled().to_json()
    for point in tree["operating"]["student"]["points"]:
        point["val"]["good"] = good
    assert (f"There are {good} of them" in advice(BoxRecord.model_validate(tree))) is said


def test_small_test_part() -> None:
    assert "With 40 defects" in advice(changed(settled(), "test.student", instances=40))


def test_silent_without_a_tested_student() -> None:
    assert advice_section(without(settled(), "test.student")) == []
