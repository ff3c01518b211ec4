"""DED: masks worked out by hand, attention, and the structural prior against a plain convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from dfssd.distillation.terms.ded import decoupled, gaussian_matrix, ssim, structure
from dfssd.distillation.terms.regions import attention, box_masks


def batch(*boxes: tuple[int, float, float, float, float], ignore: Sequence[Sequence[float]] = ()) -> dict:
    """Boxes as (image, x, y, w, h); ignore boxes lie in image 0."""
    return {
        "bboxes": torch.tensor([b[1:] for b in boxes], dtype=torch.float32).reshape(-1, 4),
        "batch_idx": torch.tensor([float(b[0]) for b in boxes]),
        "ignore_bboxes": torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
        "ignore_batch_idx": torch.zeros(len(ignore)),
    }


def test_masks_by_hand_with_overlap_and_border() -> None:
    # on 4 x 4 cells: the first covers columns 1 to 3 and rows 0 to 2 (9 cells); the second reaches beyond the right
    # and lower border and is cut to columns 3 to 3 and rows 2 to 3 (2 cells)
    boxes = batch((0, 0.45, 0.35, 0.25, 0.3), (0, 1.0, 0.9, 0.3, 0.4))
    foreground, background = box_masks(boxes, 2, 4, 4)
    a, b = 1 / 9, 1 / 2
    assert torch.allclose(
        foreground[0], torch.tensor([[0, a, a, a], [0, a, a, a], [0, a, a, b], [0, 0, 0, b]], dtype=torch.float32)
    )
    empty = 1 / 6
    assert torch.allclose(
        background[0], torch.tensor([[empty, 0, 0, 0]] * 3 + [[empty, empty, empty, 0]], dtype=torch.float32)
    )
    assert not foreground[1].any() and torch.allclose(background[1], torch.full((4, 4), 1 / 16))


def test_ignored_places_are_neither_defect_nor_background() -> None:
    _, background = box_masks(batch(ignore=[[0.25, 0.5, 0.5, 1.0]]), 1, 2, 2)
    assert background[0].tolist() == [[0, 0.5], [0, 0.5]]
    _, background = box_masks(batch(ignore=[[0.5, 0.5, 1.0, 1.0]]), 1, 2, 2)
    assert not background.any()


def test_order_of_the_boxes_does_not_change_the_masks() -> None:
    boxes = [(0, 0.3, 0.3, 0.4, 0.4), (0, 0.4, 0.5, 0.2, 0.2), (1, 0.5, 0.5, 0.5, 0.1)]
    one, other = (box_masks(batch(*order), 2, 8, 8) for order in (boxes, boxes[::-1]))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_attention_has_mean_one_and_follows_the_size() -> None:
    x = torch.zeros(1, 2, 2, 2)
    x[0, :, 0, 0] = torch.tensor([2.0, -1.0])
    spatial, channel = attention(x, 0.5)
    peak = math.exp(1.5 / 0.5)
    assert spatial[0, 0, 0].item() == pytest.approx(4 * peak / (peak + 3))
    assert channel[0, 0].item() == pytest.approx(2 / (1 + math.exp(-0.25 / 0.5)))
    assert spatial.mean().item() == pytest.approx(1) and channel.mean().item() == pytest.approx(1)


def test_decoupled_by_hand() -> None:
    """A teacher of zeros attends alike everywhere, so the value is the mean square in the box plus that outside."""
    student = torch.full((1, 3, 4, 4), 2.0)
    student[:, :, :2, :2] = 3.0
    box = batch((0, 0.25, 0.25, 0.3, 0.3))  # cells 0 to 2 in both directions
    inside = (4 * 9 + 5 * 4) / 9
    value = decoupled(student, torch.zeros_like(student), box, background=0.25)
    assert value.item() == pytest.approx(inside + 0.25 * 4)
    no_box = decoupled(student, torch.zeros_like(student), batch(), background=0.25)
    assert no_box.item() == pytest.approx(0.25 * (12 * 4 + 4 * 9) / 16)


@pytest.mark.parametrize("boxes", [0, 1, 2])
def test_decoupled_gradient(boxes: int) -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    known = batch(*[(i, 0.5, 0.5, 0.4, 0.4) for i in range(boxes)])
    assert torch.autograd.gradcheck(lambda s: decoupled(s, teacher, known), (student,))


def test_ssim_is_that_of_the_plain_convolution() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 9, 7, dtype=torch.float64), torch.randn(2, 3, 9, 7, dtype=torch.float64)
    line = torch.arange(-5, 6, dtype=torch.float64)
    line = (-(line**2) / (2 * 1.5**2)).exp()
    window = (line[:, None] * line[None, :]) / line.sum() ** 2

    def blur(z: torch.Tensor) -> torch.Tensor:
        return F.conv2d(z, window.expand(3, 1, 11, 11), padding=5, groups=3)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    torch.testing.assert_close(ssim(x, y), expected)
    assert torch.allclose(ssim(x, x), torch.ones_like(x)) and ssim(x, -x).max() < 1
    assert gaussian_matrix(30, x)[15].sum().item() == pytest.approx(1)


def test_structure_ignores_scale_and_offset_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 2, 5, 5).double()
    assert structure(3 * x + 1, x).item() == pytest.approx(0, abs=1e-4)
    assert 0 < structure(x, y) <= 1
    assert torch.autograd.gradcheck(lambda s: structure(s, y), (x,), atol=1e-4)
