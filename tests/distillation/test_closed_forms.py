"""Terms over all levels at once, with gradients in closed form, against plain formulas with autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.ded import decoupled, structure
from dfssd.distillation.terms.drd import PixelGraph, pixel_relation
from dfssd.distillation.terms.fgd import attention_distance
from dfssd.distillation.terms.giou import giou_response
from dfssd.distillation.terms.instances import instance_relation
from dfssd.distillation.terms.regions import corners
from tests.distillation import slow_terms as slow

SIZES = ((3, 6, 10), (5, 4, 4), (2, 1, 3))
"""Channels, height, and width of each level."""

COUNTS = {"none": (0, 0, 0), "one": (0, 1, 0), "equal": (2, 2, 2), "unequal": (7, 0, 3), "crowded": (70, 1, 90)}


def maps(seed: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64).to(dtype) for size in SIZES]


def batch(counts: Sequence[int], ignored: int = 4) -> dict[str, Tensor]:
    """Boxes of each image, not in the order of the images, and some that reach beyond the border."""
    generator = torch.Generator().manual_seed(len(counts) + sum(counts))
    count = sum(counts)
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return {
        "bboxes": torch.rand(count, 4, generator=generator) * 0.6 + 0.05,
        "batch_idx": image[torch.randperm(count, generator=generator)].float(),
        "ignore_bboxes": torch.rand(ignored, 4, generator=generator) * 0.6,
        "ignore_batch_idx": torch.arange(ignored).float() % len(counts),
    }


def graphs(dtype: torch.dtype) -> list[PixelGraph]:
    generator = torch.Generator().manual_seed(0)
    return [PixelGraph(c, 4, generator).to(dtype) for c, _, _ in SIZES]


Pair = tuple[Callable[..., Tensor], Callable[..., Tensor]]


def formulas(name: str, known: dict[str, Tensor], dtype: torch.dtype) -> Pair:
    """The function of all levels, and that of one."""
    boxes, drawn = corners(known), graphs(dtype)
    one_level = {
        "decoupled": lambda s, t: slow.decoupled(s, t, known, 0.25, 0.7),
        "structure": slow.structure,
        "instance_relation": lambda s, t: slow.instance_relation(s, t, *boxes, 0.7),
        "attention_distance": lambda s, t: slow.attention_distance(s, t, 0.7),
    }
    all_levels = {
        "decoupled": lambda s, t: decoupled(s, t, known, background=0.25, temperature=0.7),
        "structure": structure,
        "instance_relation": lambda s, t: instance_relation(s, t, *boxes, 0.7),
        "attention_distance": lambda s, t: attention_distance(s, t, 0.7),
    }
    if name == "pixel_relation":
        return (lambda s, t: pixel_relation(s, t, drawn)), lambda s, t: slow.over_levels(
            slow.pixel_relation, s, t, drawn
        )
    return all_levels[name], lambda s, t: slow.over_levels(one_level[name], s, t)


WITH_BOXES = [(name, counts) for name in ("decoupled", "instance_relation") for counts in COUNTS]
WITHOUT = [(name, "none") for name in ("structure", "pixel_relation", "attention_distance")]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "counts"), WITH_BOXES + WITHOUT)
def test_value_and_gradient_are_those_of_the_plain_formula(name: str, counts: str, dtype: torch.dtype) -> None:
    fast, plain = formulas(name, batch(COUNTS[counts]), dtype)
    found = []
    for function in (fast, plain):
        students = [x.requires_grad_() for x in maps(1, dtype)]
        value = function(students, maps(2, dtype))
        assert value.dtype == dtype
        found.append((value.detach(), *torch.autograd.grad(value, students)))
    exact = dtype == torch.float64
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8 if exact else 1e-3, atol=1e-10 if exact else 1e-5)
    assert (found[0][0] == 0) == (name == "instance_relation" and counts == "none")


@pytest.mark.parametrize("bins", [1, 4])
def test_overlap_of_decoded_boxes_is_that_of_torchvision(bins: int) -> None:
    """Some distances are equal, some are below 0, which counts as almost nothing."""
    generator = torch.Generator().manual_seed(0)
    raw, other = (torch.randn(2, 4 * bins, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    scores = torch.randn(2, 3, 9, generator=generator, dtype=torch.float64)
    raw[:, :, 0] = other[:, :, 0]
    found = []
    for function in (giou_response, slow.giou_response):
        boxes = raw.clone().requires_grad_()
        value = function(boxes, other, scores, bins)
        found.append((value.detach(), *torch.autograd.grad(value, [boxes])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_layout_of_the_maps_does_not_matter() -> None:
    """On a CPU the maps of the networks store their channels innermost."""
    for name, counts in (*WITHOUT, ("decoupled", "equal"), ("instance_relation", "equal")):
        fast, _ = formulas(name, batch(COUNTS[counts]), torch.float64)
        found = []
        for layout in (torch.contiguous_format, torch.channels_last):
            students = [x.to(memory_format=layout).requires_grad_() for x in maps(1, torch.float64)]
            value = fast(students, [x.to(memory_format=layout) for x in maps(2, torch.float64)])
            found.append((value.detach(), *torch.autograd.grad(value, students)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


def test_gradients_can_be_measured_several_times() -> None:
    """The balance measures the gradient of each term before the backward pass of all."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    value = closed_form(lambda own: (own.square().sum(), [2 * own]), [x])
    for factor in (1.0, 3.0):
        (gradient,) = torch.autograd.grad(factor * value, [x], retain_graph=True)
        assert gradient.tolist() == [2 * factor, 4 * factor]
    value.backward()
    assert value.item() == 5 and x.grad.tolist() == [2, 4]


def test_a_wrong_gradient_would_be_found() -> None:
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: closed_form(lambda own: (own.square().sum(), [2 * own]), [x]), (x,))
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda x: closed_form(lambda own: (own.square().sum(), [own]), [x]), (x,))


def test_empty_maps_are_zero_with_a_gradient() -> None:
    x = torch.zeros(0, 3, requires_grad=True)
    value = closed_form(lambda own: (own.mean(), [own]), [x])
    value.backward()
    assert value == 0 and x.grad.shape == (0, 3)
