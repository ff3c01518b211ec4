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


def hurried(steps: int, **changes: object) -> BoxRecord:
    """Baseline and student with so few steps, from random weights, the best epoch being the last one."""
    record = settled()
    for role in ("baseline", "student"):
        made = {"batches": 120, "epochs": 30, "epochs_done": 30, "batch": 16, "optimizer_steps": steps}
        record = changed(record, f"training.{role}", **{**made, "best_epoch": 30, "from_scratch": True, **changes})
    return record


def test_few_optimizer_steps_from_random_weights_explain_a_score_near_0() -> None:
    """42 steps in 30 epochs: 300 take 215 epochs, and with a step for every batch there are 120."""
    text = advice(hurried(42))
    assert text.count("**Longer training.**") == 1
    assert "before some 300 optimizer steps; the baseline made 42 and the student made 42. So a score" in text
    assert text.endswith("Try `epochs=215` or more, or `nbs=16`, which makes a step with every batch.")
    assert advice(hurried(120)).endswith("Try `epochs=75` or more.")


@pytest.mark.parametrize("changes", [{"from_scratch": False}, {"from_scratch": None}, {"optimizer_steps": 300}])
def test_enough_steps_or_a_trained_start_are_no_excuse(changes: dict[str, object]) -> None:
    assert "From random weights" not in advice(hurried(42, **changes))


def test_a_hurried_teacher_has_its_own_key() -> None:
    made = {"from_scratch": True, "optimizer_steps": 60, "batches": 60, "epochs": 10, "epochs_done": 10}
    assert advice(changed(settled(), "training.teacher", **made)).endswith("Try `teacher_epochs=50` or more.")


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
