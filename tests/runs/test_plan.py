"""The plan of a run, by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from dfssd.runs.plan import Pace, Plan, PlannedStage, PlannedTraining, about, training_cost

TEACHER = PlannedTraining("teacher", epochs=40, batches=5, batch=16, accumulate=4, steps=53, patience=10, cost=600)
BASELINE = PlannedTraining("baseline", epochs=20, batches=5, batch=16, accumulate=1, steps=100, patience=None, cost=100)
STUDENT = PlannedTraining("student", epochs=20, batches=5, batch=16, accumulate=1, steps=100, patience=None, cost=300)
STAGES = (
    PlannedStage("teacher", "on the labeled images", (TEACHER,)),
    PlannedStage("pseudo-label", "460 images", cost=40),
    PlannedStage("baseline", "on the labeled images", (BASELINE,)),
    PlannedStage("student", "on all", (STUDENT,)),
    PlannedStage("report", "report.html"),
)


def test_cost_by_hand() -> None:
    """10 epochs of 16 images by a network of 3 M parameters, a teacher of 11 M, two validations of 5 images."""
    cost = training_cost(images=16, epochs=10, size=3, teacher=11, val=5, val_every=5)
    assert cost == 10 * 16 * (3 * 3 + 11) + 2 * 5 * 3


def test_nothing_is_estimated_before_something_is_measured() -> None:
    assert Pace().estimate(100) is None and Plan(STAGES, "mAP").times(Pace()) == {}


def test_times_follow_from_what_was_measured() -> None:
    """100 passes took 50 s; 100 more of the running training take 30 s: 0.4 s each."""
    pace = Pace()
    pace.add(100, 50)
    assert pace.estimate(10) == 5
    assert pace.estimate(10, running=(100, 30)) == 4
    times = Plan(STAGES, "mAP", finished=frozenset({"teacher"})).times(pace)
    assert times == {"pseudo-label": 20, "baseline": 50, "student": 150}


def test_later_stages() -> None:
    plan = Plan(STAGES, "mAP", finished=frozenset({"baseline"}))
    assert [stage.name for stage in plan.after("pseudo-label")] == ["student", "report"]
    assert [stage.name for stage in plan.after("prepare")] == ["teacher", "pseudo-label", "student", "report"]
    assert plan.training("student") == (STAGES[3], STUDENT) and plan.training("extra") is None


def test_table_says_what_each_stage_does() -> None:
    text = io.StringIO()
    plan = Plan((*STAGES, PlannedStage("self-train", "twice", (BASELINE, STUDENT))), "mAP50-95", frozenset({"student"}))
    Console(file=text, width=160, color_system=None).print(plan.table())
    rows = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert rows == [
        "stage epochs batches optimizer steps",
        "teacher 40 200 53 on the labeled images; ends early after 10 epochs without a better mAP50-95 on val",
        "pseudo-label 460 images",
        "baseline 20 100 100 on the labeled images",
        "student finished",
        "report report.html",
        "self-train: baseline 20 100 100 twice",
        "self-train: student 20 100 100 twice",
    ]


def told(*trainings: PlannedTraining, finished: str = "") -> tuple[list[str], list[str]]:
    """Notes and warnings of a plan of these trainings, a stage each."""
    stages = [PlannedStage(training.network, "", (training,)) for training in trainings]
    plan = Plan(stages, "mAP", frozenset({finished}))
    return list(plan.notes()), list(plan.warnings())


def test_too_few_steps_from_random_weights_are_told_once_with_what_gives_more() -> None:
    """100 steps a training; 300 take 60 epochs of 5 batches, 1,000 take 200."""
    new = replace(BASELINE, least=300, length="epochs")
    short = (
        "baseline and student: 100 optimizer steps are too few to learn from random weights: expect a score near 0 "
        "before about 300; epochs=60, or a smaller batch= with an nbs= that is not larger"
    )
    student = replace(STUDENT, least=300, length="epochs")
    assert told(new, student) == ([], [short])
    assert told(new, replace(student, least=0, chosen=True)) == ([], [short.replace(" and student", "")])
    assert told(new, finished="baseline") == ([], [])
    assert told(replace(new, least=100)) == ([], []), "enough"
    assert told(replace(new, least=101))[1], "the bound is exact"


def test_steps_of_several_batches_can_be_taken_with_every_batch() -> None:
    teacher = replace(TEACHER, least=300, length="teacher_epochs")
    (warning,) = told(teacher)[1]
    assert warning.endswith("about 300; teacher_epochs=240, or nbs=16 (a step with every batch: 200)")
    assert replace(teacher, length="").with_more_steps(300) == "nbs=16 (a step with every batch: 200)"


def test_a_length_that_was_chosen_too_short_to_converge() -> None:
    note = "student: 100 optimizer steps are too few to converge: epochs=200, or a smaller batch= with an nbs= that is "
    assert told(replace(STUDENT, length="epochs")) == ([], []), "the default is not the user's doing"
    ((found,), warnings) = told(replace(STUDENT, length="epochs", chosen=True))
    assert found.startswith(note) and not warnings
    assert told(replace(STUDENT, length="epochs", chosen=True, steps=1000)) == ([], [])


def test_note_of_a_stage_that_is_not_finished() -> None:
    stage = PlannedStage("teacher", "", (TEACHER,), note="why")
    assert list(Plan([stage], "mAP").notes()) == ["why"]
    assert not list(Plan([stage], "mAP", frozenset({"teacher"})).notes())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (42.4, "42 s"),
        (89, "89 s"),
        (100, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (7300, "2 h"),
        (90000, "25 h"),
    ],
)
def test_about(seconds: float, words: str) -> None:
    assert about(seconds) == words
