"""Colors of classes, and masks over their images."""

import numpy as np
import pytest

from dfssd.reporting.overlays import class_colors, outlined, overlay


def test_overlay_colors_defects_alone():
    gray = np.full((2, 3), 100, np.uint8)
    ids = np.array([[0, 1, 2], [255, 7, 0]], np.uint8)
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    look = overlay(gray, ids, colors)
    assert (look[0, 0] == 100).all() and (look[1, 1:] == 100).all()
    assert look[0, 1].tolist() == [185, 45, 45] and look[0, 2].tolist() == [45, 185, 45]
    assert look[1, 0].tolist() in ([255] * 3, [128] * 3)
    assert (gray == 100).all()


@pytest.mark.parametrize("nc", [2, 8, 9, 60, 255])
def test_every_class_has_its_own_color(nc):
    assert len({tuple(color) for color in class_colors(nc)[1:].tolist()}) == nc - 1


def test_outlines_leave_the_defect_to_be_seen():
    gray = np.full((9, 9), 100, np.uint8)
    ids = np.zeros((9, 9), np.uint8)
    ids[2:7, 2:7] = 1
    ids[8, 0] = 255
    colors = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    look = outlined(gray, ids, colors, 1)
    border = (look == [255, 0, 0]).all(2)
    assert border.sum() == 16 and border[2, 2:7].all() and not border[3:6, 3:6].any()
    assert (look[3:6, 3:6] == 100).all() and (look[0] == 100).all()
    assert look[8, 0].tolist() in ([255] * 3, [128] * 3)
