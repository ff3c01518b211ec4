"""The plan of a run, by hand."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dfssd.runs.plan import Pace, Plan, PlannedStage, PlannedTraining, about, training_cost

TEACHER = PlannedTraining("teacher", epochs=40, batches=5, accumulate=4, patience=10, cost=600)
BASELINE = PlannedTraining("baseline", epochs=20, batches=5, accumulate=1, patience=None, cost=100)
STUDENT = PlannedTraining("student", epochs=20, batches=5, accumulate=1, patience=None, cost=300)
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
        "teacher 40 200 about 50 on the labeled images; ends early after 10 epochs without a better mAP50-95 on val",
        "pseudo-label 460 images",
        "baseline 20 100 100 on the labeled images",
        "student finished",
        "report report.html",
        "self-train: baseline 20 100 100 twice",
        "self-train: student 20 100 100 twice",
    ]


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
