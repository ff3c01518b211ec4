"""The section ``differences`` of a record: which networks are compared, and by what."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dfssd.evaluation.bootstrap import intervals
from dfssd.evaluation.differences import compared_pairs, differences
from dfssd.results.sections import Gain
from tests.evaluation.test_detections import random_detections, reference

SCORES = ("map50_95", "map50")


@pytest.mark.parametrize(
    ("roles", "shipped", "pairs"),
    [
        ("teacher baseline student", False, "student-baseline student-teacher teacher-baseline"),
        (
            "teacher baseline student student_trained",
            True,
            "student-teacher teacher-baseline student_trained-baseline student_trained-teacher",
        ),
        ("baseline student", True, ""),
        ("teacher student", False, "student-teacher"),
        ("baseline", False, ""),
        (
            "baseline baseline_scratch student",
            False,
            "student-baseline baseline-baseline_scratch student-baseline_scratch",
        ),
        ("baseline student compare1", False, "student-baseline student-compare1"),
    ],
)
def test_pairs(roles, shipped, pairs):
    found = compared_pairs(roles.split(), baseline_shipped=shipped)
    assert [f"{own}-{other}" for own, other in found] == pairs.split()


def test_values_are_those_of_the_scores_and_ends_those_of_the_bootstrap():
    measured = {"student": random_detections(skill=2.0), "baseline": random_detections(skill=1.0)}
    test = {role: SimpleNamespace(**reference(found)) for role, found in measured.items()}
    section = differences(test, measured, SCORES, baseline_shipped=False)
    assert section is not None and (section.level, section.draws) == (0.95, 1000)
    [pair] = section.pairs
    assert (pair.network, pair.reference) == ("student", "baseline") and set(pair.gains) == set(SCORES)
    ends = intervals(measured, [("student", "baseline")])["student", "baseline"]
    for score, gain in pair.gains.items():
        assert gain.value == pytest.approx(
            reference(measured["student"])[score] - reference(measured["baseline"])[score]
        )
        assert (gain.low, gain.high) == ends[score] and ends[score][0] < gain.value < ends[score][1]


def test_scores_without_value_and_without_interval():
    found = random_detections()
    empty = replace(found, target_cls=found.target_cls[:0], target_image=found.target_image[:0])
    test = {"student": SimpleNamespace(map50_95=0.3, map50=None), "baseline": SimpleNamespace(map50_95=0.2, map50=0.4)}
    section = differences(test, {"student": empty, "baseline": empty}, SCORES, baseline_shipped=False)
    assert section is not None
    [(score, gain)] = section.pairs[0].gains.items()
    assert score == "map50_95" and gain == Gain(value=0.3 - 0.2, low=None, high=None)


def test_nothing_to_compare():
    found = random_detections()
    assert differences({"baseline": SimpleNamespace()}, {"baseline": found}, SCORES, baseline_shipped=False) is None
