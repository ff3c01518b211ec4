"""Test images that a report shows: which ones, in which order, and what is drawn on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfssd.detection.examples import (
    FALSE_ALARM,
    MISSED,
    MOST,
    PARTLY,
    RIGHT,
    TRUTH,
    TYPICAL,
    WRONG,
    Example,
    choose_examples,
)
from dfssd.evaluation.detections import Detections
from dfssd.results.record import BoxRecord
from tests.detection import recorded_run
from tests.evaluation.test_errors import detections
from tests.reporting.records import changed

BOX = (10, 10, 50, 50)


def record() -> BoxRecord:
    """Two networks whose thresholds are 0.5 for each class."""
    half = dict.fromkeys(recorded_run.NAMES, 0.5)
    own = recorded_run.results()
    for role in ("student", "baseline"):
        points = [{**point, "thresholds": half} for point in own.to_json()["operating"][role]["points"]]
        own = changed(own, f"operating.{role}", points=points)
    return own


def files(count: int) -> list[Path]:
    return [Path(f"/photos/{n}/part.png") for n in range(count)]  # the same name in several folders


def choose(student: Detections, baseline: Detections | None = None) -> tuple[Example, ...]:
    found = {"student": student} | ({"baseline": baseline} if baseline else {})
    return choose_examples(record(), found, files(len(student.images)))


def test_largest_missed_defect_comes_first() -> None:
    true = [(0, 0, 10, 10, 20, 20), (1, 1, 10, 10, 60, 60), (2, 2, 10, 10, 40, 40)]
    shown = choose(detections([(2, 0.9, 2, 10, 10, 40, 40)], true, images=3))
    assert [(e.kind, e.image.parent.name) for e in shown] == [(MISSED, "1"), (MISSED, "0"), (TYPICAL, "2")]
    assert shown[0].said == "missed: dents" and shown[2].said == "everything found"
    assert [mark.color for mark in shown[0].marks[TRUTH]] == [WRONG]
    assert [mark.color for mark in shown[2].marks["student"]] == [RIGHT]


def test_surest_false_alarm_comes_first() -> None:
    found = [(0, 0.6, 0, *BOX), (3, 0.95, 1, *BOX), (0, 0.4, 2, *BOX)]
    shown = choose(detections(found, [], images=3))
    assert [(e.kind, e.said) for e in shown] == [
        (FALSE_ALARM, "false alarm: pits 0.95"),
        (FALSE_ALARM, "false alarm: inclusions 0.60"),
        (TYPICAL, "a good image"),
    ]
    assert [(mark.text, mark.color) for mark in shown[0].marks["student"]] == [("pits 0.95", WRONG)]
    assert shown[2].marks["student"] == [], "below its threshold"


def test_defect_found_as_something_else_is_neither_missed_nor_found() -> None:
    [example] = choose(detections([(1, 0.9, 0, *BOX)], [(0, 0, *BOX)]))
    assert example.kind == MISSED and "found as something else" in example.said
    assert example.marks[TRUTH][0].color == example.marks["student"][0].color == PARTLY


def test_each_image_is_shown_once_and_no_kind_too_often() -> None:
    count = 4 * max(MOST.values())
    true = [(0, image, *BOX) for image in range(0, count, 2)] + [(1, 0, 60, 60, 90, 90)]
    found = [(2, 0.5 + image / 100, image, 60, 10, 90, 40) for image in range(1, count, 3)]
    shown = choose(detections(found, true, images=count))
    assert len({example.image for example in shown}) == len(shown)
    assert {kind: sum(e.kind == kind for e in shown) for kind in MOST} == MOST


def test_networks_are_compared_on_the_same_image_whatever_their_order() -> None:
    student = detections([], [(0, 0, *BOX), (1, 1, *BOX)], images=2)
    other = detections([(1, 0.8, 0, *BOX)], [(1, 0, *BOX), (0, 1, *BOX)], images=2)
    assert other.places is not None
    other = replace(other, places=replace(other.places, line=np.array([1, 0])))
    by_image = {example.image.parent.name: example for example in choose(student, other)}
    assert [mark.text for mark in by_image["1"].marks["baseline"]] == ["dents 0.80"]
    assert by_image["0"].marks["baseline"] == []
    assert list(by_image["0"].marks) == [TRUTH, "student", "baseline"]


def test_boxes_end_at_the_image() -> None:
    [example] = choose(detections([(0, 0.9, 0, -5, -5, 105, 50)], [(0, 0, 0, 0, 100, 50)]))
    assert example.marks["student"][0].corners == (0.0, 0.0, 1.0, 0.5)


@pytest.mark.parametrize("line", [-1, 1])
def test_unknown_image_shows_nothing(line: int) -> None:
    own = detections([], [(0, 0, *BOX)])
    assert own.places is not None
    assert choose(replace(own, places=replace(own.places, line=np.array([line])))) == ()


def test_without_places_or_student_nothing_is_shown() -> None:
    own = detections([], [(0, 0, *BOX)])
    assert choose(replace(own, places=None)) == ()
    assert choose_examples(record(), {"baseline": own}, files(1)) == ()
