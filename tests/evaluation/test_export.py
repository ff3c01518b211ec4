from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from dfssd.evaluation.export import Limit, ScorePair
from dfssd.evaluation.exported import letterbox, running_max

SIZE = 64


@pytest.mark.parametrize(
    ("found", "failure"),
    [
        (0.5, None),
        (0.50001, "edges differ by 0.5, allowed is 0.5"),
        (12.3456, "edges differ by 12.35, allowed is 0.5"),
        (math.nan, "edges differ by nan, allowed is 0.5"),
        (math.inf, "edges differ by inf, allowed is 0.5"),
        (None, None),
    ],
)
def test_a_limit_names_what_exceeds_it(found, failure):
    assert Limit("edges differ by", found, 0.5).failure == failure


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [(0.75, 0.5, 0.25), (0.5, 0.75, 0.25), (None, None, None), (None, 0.0, math.inf), (0.0, None, math.inf)],
)
def test_a_score_that_only_one_file_has_is_no_small_difference(first, second, difference):
    assert ScorePair(first, second).difference == difference


def test_the_larger_difference_keeps_nan():
    assert running_max(0.5, torch.tensor([-2.0, 1.0])) == 2.0
    assert running_max(3.0, torch.tensor([-2.0, 1.0])) == 3.0
    assert math.isnan(running_max(3.0, torch.tensor([math.nan, 1.0])))
    assert math.isnan(running_max(math.nan, torch.tensor([1.0])))


def test_letterbox_keeps_the_aspect_and_pads_with_gray(tmp_path):
    Image.new("RGB", (80, 40), (255, 0, 0)).save(tmp_path / "red.png")
    pixels = letterbox(tmp_path / "red.png", (SIZE, SIZE))
    assert pixels.shape == (1, 3, SIZE, SIZE) and pixels.dtype == np.float32
    assert np.allclose(pixels[0, :, SIZE // 2, SIZE // 2], [1, 0, 0])  # RGB, 0-1
    assert np.allclose(pixels[0, :, 2, SIZE // 2], 114 / 255)  # 16 px above and below
