"""The losses in one pass against the losses one by one: values, gradients, and operators."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dfssd.benchmark.operators import count_operators
from dfssd.datasets.records import IGNORE
from tests.configured import segmentation_loss
from tests.segmentation.test_losses import NAMES, material

WEIGHTS = {"ce": 0.7, "dice": 1.3, "boundary": 0.4, "kd": 2.1}


def given(z: Tensor, mask: Tensor, maps: Tensor, teacher: Tensor, kd_pixels: Tensor | None) -> tuple[tuple, dict]:
    return (z, mask), {"maps": maps, "teacher": teacher, "kd_pixels": kd_pixels}


def values_and_slopes(loss, z: Tensor, *rest) -> tuple[tuple, tuple]:
    """(sum, parts, gradient) in one pass and one by one."""
    found = []
    for one_by_one in (False, True):
        z = z.detach().requires_grad_()
        args, kwargs = given(z, *rest)
        if one_by_one:
            parts = loss.parts(*args, **kwargs)
            total = torch.stack(list(parts.values())).sum()
        else:
            total, parts = loss(*args, **kwargs)
        (slope,) = torch.autograd.grad(3 * total, z)
        found.append((total, {name: value for name, value in parts.items() if loss.weights[name]}, slope))
    return found[0], found[1]


@pytest.mark.parametrize("active", [c for n in range(1, 5) for c in itertools.combinations(NAMES, n)])
@pytest.mark.parametrize("pixels", [None, "some", "none"])
def test_values_and_gradients_are_those_of_the_losses_one_by_one(active: tuple[str, ...], pixels: str | None) -> None:
    loss = segmentation_loss(**{name: WEIGHTS[name] if name in active else 0.0 for name in NAMES})
    z, mask, maps, teacher = material(n=3)
    where = None if pixels is None else torch.rand(mask.shape) < 0.5 * (pixels == "some")
    (total, parts, slope), (slow_total, slow_parts, slow_slope) = values_and_slopes(loss, z, mask, maps, teacher, where)
    assert set(parts) == set(slow_parts) == set(active)
    for name, value in slow_parts.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-12, abs=1e-14), name
    assert total.item() == pytest.approx(slow_total.item(), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(slope, slow_slope, rtol=1e-11, atol=1e-13)
    assert bool(slope.any()) or (active == ("kd",) and pixels == "none")


@pytest.mark.parametrize("nc", [2, 7])
def test_single_precision_agrees_to_its_rounding(nc: int) -> None:
    case = [x.float() if x.is_floating_point() else x for x in material(nc, n=4, size=(24, 32), seed=nc)]
    case[1] = case[1].to(torch.int32)
    (total, _, slope), (slow_total, _, slow_slope) = values_and_slopes(segmentation_loss(**WEIGHTS), *case, None)
    assert total.item() == pytest.approx(slow_total.item(), rel=2e-6)
    torch.testing.assert_close(slope, slow_slope, rtol=1e-5, atol=1e-9)


def test_gradient_is_that_of_differences() -> None:
    z, mask, maps, teacher = material(3, n=1, size=(2, 3))
    mask[0, 1, 1] = IGNORE
    where = torch.tensor([[[True, False, True], [True, True, False]]])
    loss = segmentation_loss(**WEIGHTS)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, mask, maps=maps, teacher=teacher, kd_pixels=where)[0], z.requires_grad_()
    )


def test_nothing_known_and_nothing_distilled_gives_zero() -> None:
    z, mask, maps, teacher = material()
    nowhere = torch.zeros(mask.shape, dtype=torch.bool)
    (total, parts, slope), _ = values_and_slopes(
        segmentation_loss(**WEIGHTS), z, torch.full_like(mask, IGNORE), maps, teacher, nowhere
    )
    assert total == 0 and not any(parts.values()) and not slope.any()


def test_frozen_teacher_in_inference_mode_teaches() -> None:
    z, mask, maps, teacher = material()
    with torch.inference_mode():
        frozen = teacher + 0.0
    loss = segmentation_loss(**WEIGHTS)
    for method in (loss, lambda *a, **k: (torch.stack(list(loss.parts(*a, **k).values())).sum(),)):
        x = z.clone().requires_grad_()
        method(x, mask, maps=maps, teacher=frozen)[0].backward()
        assert x.grad is not None and x.grad.any()


def test_fewer_operators_and_no_wait() -> None:
    case = material(n=2, size=(16, 16))
    loss = segmentation_loss(**WEIGHTS)
    where = case[1] != IGNORE

    def step(one_by_one: bool) -> None:
        args, kwargs = given(case[0].detach().requires_grad_(), *case[1:], where)
        if one_by_one:
            torch.stack(list(loss.parts(*args, **kwargs).values())).sum().backward()
        else:
            loss(*args, **kwargs)[0].backward()

    combined, slow = count_operators(lambda: step(False)), count_operators(lambda: step(True))
    assert combined.waits == slow.waits == 0
    assert combined.launched <= 58 and combined.launched < 0.65 * slow.launched
