"""Rectangles of unlabeled images pasted into each other, with the teacher's answers."""

from __future__ import annotations

import numpy as np
import torch

from dfssd.segmentation.mixing import AREA, ASPECT, Pasted, draw, paste


def batch(n: int, height: int = 6, width: int = 8) -> dict[str, torch.Tensor]:
    """Images whose pixels all hold the number of the image, in each field times a power of ten."""
    number = torch.arange(n, dtype=torch.float32).view(-1, 1, 1, 1)
    return {
        "img": number.expand(n, 3, height, width).clone(),
        "teacher_logits": (100 * number).expand(n, 4, height, width).clone(),
        "kd_pixels": (number[:, 0] > 0).expand(n, height, width).clone(),
        "semantic_mask": (10 * number[:, 0]).expand(n, height, width).clone(),
    }


def test_a_rectangle_by_hand() -> None:
    """The second of two unlabeled images gets rows 1 and 2 of columns 3 to 6 of the first; all else stays."""
    given = batch(4)
    pasted = Pasted(np.array([1, 0]), np.array([[0, 0], [1, 3]]), np.array([[0, 0], [3, 7]]))
    found = paste(given, pasted)
    for name, scale in (("img", 1), ("teacher_logits", 100)):
        expected = given[name].clone()
        expected[3, :, 1:3, 3:7] = 2 * scale
        assert torch.equal(found[name], expected)
    assert torch.equal(found["kd_pixels"], given["kd_pixels"]) and found["semantic_mask"] is given["semantic_mask"]


def test_pixels_around_an_image_do_not_teach_where_they_are_pasted() -> None:
    given = batch(2)
    given["kd_pixels"][0] = False  # a strip, with gray around it
    found = paste(given, Pasted(np.array([1, 0]), np.array([[0, 0], [0, 2]]), np.array([[0, 0], [0, 8]])))
    assert not found["kd_pixels"][1, :2].any() and found["kd_pixels"][1, 2:].all()


def test_layout_and_type_stay() -> None:
    given = batch(3)
    given["img"] = given["img"].contiguous(memory_format=torch.channels_last)
    found = paste(given, draw(np.random.default_rng(0), 2, (6, 8), 1.0))
    assert found["img"].stride() == given["img"].stride()
    assert found["teacher_logits"].stride() == given["teacher_logits"].stride()
    assert all(found[name].dtype == given[name].dtype for name in given)


def test_rectangles_are_of_the_stated_sizes_and_from_other_images() -> None:
    drawn = draw(np.random.default_rng(0), 2000, (100, 200), 0.7)
    assert (drawn.source != np.arange(2000)).all()
    height, width = np.diff(drawn.rows)[:, 0] / 100, np.diff(drawn.columns)[:, 0] / 200
    hit = height > 0
    assert 0.66 < hit.mean() < 0.74 and ((height > 0) == (width > 0)).all()
    height, width = height[hit], width[hit]
    area, aspect = height * width, height / width
    rounding = 0.01
    assert AREA[0] - rounding < area.min() < 0.12 and 0.48 < area.max() < AREA[1] + rounding
    assert 1 / ASPECT - 0.03 < aspect.min() < 0.55 and 1.9 < aspect.max() < ASPECT + 0.05
    assert drawn.rows.min() >= 0 and drawn.rows.max() <= 100 and drawn.columns.max() <= 200


def test_nothing_is_pasted_into_a_single_image_or_with_probability_0() -> None:
    for n, probability in ((1, 1.0), (5, 0.0)):
        drawn = draw(np.random.default_rng(0), n, (6, 8), probability)
        assert (np.diff(drawn.rows) == 0).all() and (np.diff(drawn.columns) == 0).all()
        given = batch(n)
        assert all(torch.equal(found, given[name]) for name, found in paste(given, drawn).items())


def test_same_random_numbers_same_rectangles() -> None:
    one, two, other = (draw(np.random.default_rng(seed), 4, (50, 50), 1.0) for seed in (3, 3, 4))
    assert (one.rows == two.rows).all() and (one.source == two.source).all() and (one.rows != other.rows).any()
