"""DED: masks worked out by hand, attention, and the structural prior against a plain convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from dfssd.distillation.terms.ded import decoupled, gaussian_matrix, ssim, structure
from dfssd.distillation.terms.levels import Maps
from dfssd.distillation.terms.regions import attention, box_masks
from tests.distillation import slow_terms as slow


def batch(*boxes: tuple[int, float, float, float, float], ignore: Sequence[Sequence[float]] = ()) -> dict:
    """Boxes as (image, x, y, w, h); ignore boxes lie in image 0."""
    return {
        "bboxes": torch.tensor([b[1:] for b in boxes], dtype=torch.float32).reshape(-1, 4),
        "batch_idx": torch.tensor([float(b[0]) for b in boxes]),
        "ignore_bboxes": torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
        "ignore_batch_idx": torch.zeros(len(ignore)),
    }


def masks(boxes: dict, n: int, *levels: tuple[int, int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Foreground and background weights of each level, (n, height, width)."""
    parts = (x.split([h * w for h, w in levels], 1) for x in box_masks(boxes, n, levels))
    return [tuple(x.view(n, *size) for x in pair) for *pair, size in zip(*parts, levels, strict=True)]


def test_masks_by_hand_with_overlap_and_border() -> None:
    # on 4 x 4 cells: the first covers columns 1 to 3 and rows 0 to 2 (9 cells); the second reaches beyond the right
    # and lower border and is cut to columns 3 to 3 and rows 2 to 3 (2 cells)
    boxes = batch((0, 0.45, 0.35, 0.25, 0.3), (0, 1.0, 0.9, 0.3, 0.4))
    foreground, background = masks(boxes, 2, (4, 4))[0]
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
    _, background = masks(batch(ignore=[[0.25, 0.5, 0.5, 1.0]]), 1, (2, 2))[0]
    assert background[0].tolist() == [[0, 0.5], [0, 0.5]]
    _, background = masks(batch(ignore=[[0.5, 0.5, 1.0, 1.0]]), 1, (2, 2))[0]
    assert not background.any()


def test_order_of_the_boxes_does_not_change_the_masks() -> None:
    boxes = [(0, 0.3, 0.3, 0.4, 0.4), (0, 0.4, 0.5, 0.2, 0.2), (1, 0.5, 0.5, 0.5, 0.1)]
    one, other = (box_masks(batch(*order), 2, [(8, 8)]) for order in (boxes, boxes[::-1]))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_masks_of_all_levels_are_those_of_a_loop_over_the_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = [(k % 3, *torch.rand(4, generator=generator).tolist()) for k in range(20)]
    known = batch(*boxes, ignore=[[0.3, 0.3, 0.2, 0.4], [0.9, 0.9, 0.3, 0.1]])
    levels = [(5, 9), (4, 4), (1, 2)]
    for found, level in zip(masks(known, 4, *levels), levels, strict=True):
        for one, other in zip(found, slow.box_masks(known, 4, *level), strict=True):
            torch.testing.assert_close(one, other)


def test_attention_has_mean_one_and_follows_the_size() -> None:
    x = torch.zeros(1, 2, 2, 2)
    x[0, :, 0, 0] = torch.tensor([2.0, -1.0])
    (spatial,), (channel,) = attention([x], 0.5)
    peak = math.exp(1.5 / 0.5)
    assert spatial[0, 0].item() == pytest.approx(4 * peak / (peak + 3))
    assert channel[0, 0].item() == pytest.approx(2 / (1 + math.exp(-0.25 / 0.5)))
    assert spatial.mean().item() == pytest.approx(1) and channel.mean().item() == pytest.approx(1)


def test_decoupled_by_hand() -> None:
    """A teacher of zeros attends alike everywhere, so the value is the mean square in the box plus that outside."""
    student = torch.full((1, 3, 4, 4), 2.0)
    student[:, :, :2, :2] = 3.0
    box = batch((0, 0.25, 0.25, 0.3, 0.3))  # cells 0 to 2 in both directions
    inside = (4 * 9 + 5 * 4) / 9
    value = decoupled([student], [torch.zeros_like(student)], box, background=0.25)
    assert value.item() == pytest.approx(inside + 0.25 * 4)
    no_box = decoupled([student], [torch.zeros_like(student)], batch(), background=0.25)
    assert no_box.item() == pytest.approx(0.25 * (12 * 4 + 4 * 9) / 16)


@pytest.mark.parametrize("boxes", [0, 1, 2])
def test_decoupled_gradient(boxes: int) -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    known = batch(*[(i, 0.5, 0.5, 0.4, 0.4) for i in range(boxes)])
    assert torch.autograd.gradcheck(lambda s: decoupled([s], [teacher], known), (student,))


def test_ssim_is_that_of_the_plain_convolution() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 9, 7, dtype=torch.float64), torch.randn(2, 3, 9, 7, dtype=torch.float64)

    def similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ssim(Maps([x]), Maps([y]))[0][0]

    torch.testing.assert_close(similarity(x, y), slow.ssim(x, y))
    assert torch.allclose(similarity(x, x), torch.ones_like(x)) and similarity(x, -x).max() < 1
    assert gaussian_matrix(30, x.dtype, x.device)[15].sum().item() == pytest.approx(1)


def test_structure_ignores_scale_and_offset_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True), torch.randn(2, 2, 5, 5).double()
    assert structure([3 * x + 1], [x]).item() == pytest.approx(0, abs=1e-4)
    assert 0 < structure([x], [y]) <= 1
    assert torch.autograd.gradcheck(lambda s: structure([s], [y]), (x,), atol=1e-4)
