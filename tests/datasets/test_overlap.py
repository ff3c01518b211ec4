"""How far boxes lie in one another, on boxes whose overlap is plain to see."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.datasets.overlap import box_iou, covered_share


def test_box_iou_hand_worked():
    a = np.array([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.0, 0.0]])
    b = np.array([[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1], [0.2, 0.2, 0.0, 0.0]])
    assert box_iou(a, b) == pytest.approx(np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))


def test_a_box_inside_another_is_covered_whole():
    inner, outer = np.array([[0.5, 0.5, 0.1, 0.2]]), np.array([[0.5, 0.5, 0.4, 0.4], [0.5, 0.4, 0.1, 0.2]])
    assert covered_share(inner, outer) == pytest.approx(np.array([[1, 0.5]]))
    assert box_iou(inner, outer) == pytest.approx(np.array([[0.125, 1 / 3]]))
