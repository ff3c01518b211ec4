"""Boxes of two networks become one list; how much they disagree."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.review.proposals import BOTH, STUDENT, TEACHER, closeness, disagreements, proposals
from tests.review.material import found

LEFT, LEFT_TOO, RIGHT = (0.2, 0.5, 0.2, 0.4), (0.21, 0.5, 0.2, 0.4), (0.7, 0.5, 0.2, 0.4)


def test_one_object_is_one_box_that_of_the_surer_network() -> None:
    both = proposals(found((0, 0.4, LEFT)), found((0, 0.8, LEFT_TOO)))
    assert len(both) == 1 and both.found_by == [BOTH]
    assert both.scores == pytest.approx([0.8]) and both.boxes_xywhn[0] == pytest.approx(LEFT_TOO)
    assert both.teacher == pytest.approx([0.4]) and both.student == pytest.approx([0.8])
    surer_teacher = proposals(found((0, 0.9, LEFT)), found((0, 0.8, LEFT_TOO)))
    assert surer_teacher.boxes_xywhn[0] == pytest.approx(LEFT)


def test_another_class_or_place_is_another_box() -> None:
    both = proposals(found((0, 0.4, LEFT)), found((1, 0.8, LEFT), (0, 0.6, RIGHT)))
    assert both.found_by == [STUDENT, STUDENT, TEACHER] and both.classes.tolist() == [1, 0, 0]


def test_each_box_has_one_partner() -> None:
    """The surer of two boxes of the student takes the box of the teacher; the other one stays alone."""
    both = proposals(found((0, 0.5, LEFT)), found((0, 0.7, LEFT), (0, 0.6, LEFT_TOO)))
    assert both.found_by == [BOTH, STUDENT] and both.student == pytest.approx([0.7, 0.6])


def test_without_a_student_all_is_the_teacher_s() -> None:
    alone = proposals(found((0, 0.3, LEFT), (1, 0.9, RIGHT)), None)
    assert alone.found_by == [TEACHER, TEACHER] and alone.scores == pytest.approx([0.9, 0.3])
    assert len(proposals(found(), found())) == 0


def test_boxes_above_a_score() -> None:
    alone = proposals(found((0, 0.3, LEFT), (1, 0.9, RIGHT)), None)
    assert alone.above(0.5).classes.tolist() == [1]


def test_disagreement_by_hand() -> None:
    """Found by both: 0.8 - 0.5. Found by one: (0.55 - 0.1) / (1 - 0.1). A box at the lowest score: no doubt at all."""
    both = proposals(found((0, 0.5, LEFT)), found((0, 0.8, LEFT), (1, 0.55, LEFT), (1, 0.1, RIGHT)))
    assert disagreements(both, lowest=0.1) == pytest.approx([0.3, 0.5, 0.0], abs=1e-6)


def test_closeness_by_hand() -> None:
    """Threshold 0.3 from 0.1 to 1: at 0.2 half of the way below, at 0.65 half of the way above."""
    alone = proposals(found((0, 0.3, LEFT), (0, 0.2, RIGHT), (0, 0.65, RIGHT), (0, 1.0, LEFT), (0, 0.1, LEFT)), None)
    near = closeness(alone, np.array([0.3]), lowest=0.1)
    assert dict(zip(alone.scores.round(2).tolist(), near.round(3).tolist(), strict=True)) == {
        1.0: 0.0, 0.65: 0.5, 0.3: 1.0, 0.2: 0.5, 0.1: 0.0,
    }  # fmt: skip
