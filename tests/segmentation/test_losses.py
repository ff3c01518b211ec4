"""The four losses against numpy, their identities and limits, and what an ignored pixel must not do."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from dfssd.datasets.records import IGNORE
from dfssd.segmentation.losses import boundary, cross_entropy, dice, kd
from tests.configured import segmentation_loss

NAMES = ("ce", "dice", "boundary", "kd")


def material(
    nc: int = 4, *, n: int = 2, seed: int = 0, ignored: float = 0.3, size: tuple[int, int] = (5, 7)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, mask, maps and logits of a teacher, in fp64."""
    generator = torch.Generator().manual_seed(seed)

    def random(channels: int) -> Tensor:
        return 2 * torch.randn(n, channels, *size, generator=generator, dtype=torch.float64)

    mask = torch.randint(0, nc, (n, *size), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < ignored] = IGNORE
    return random(nc), mask, random(nc - 1), random(nc)


def value(name: str, z: Tensor, mask: Tensor, maps: Tensor, teacher: Tensor) -> Tensor:
    """One of the losses, called alike."""
    calls: dict[str, Callable[[], Tensor]] = {
        "ce": lambda: cross_entropy(z, mask),
        "dice": lambda: dice(z, mask),
        "boundary": lambda: boundary(z, maps, mask),
        "kd": lambda: kd(z, teacher, mask, 0.7),
    }
    return calls[name]()


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def slow_values(z: Tensor, mask: Tensor, maps: Tensor, teacher: Tensor, tau: float = 0.7) -> dict[str, float]:
    """All losses by a loop over the pixels that are not ignored."""
    p, phi = softmax(z.numpy()), maps.numpy()
    ps, pt = softmax(z.numpy() / tau), softmax(teacher.numpy() / tau)
    nc, pixels = z.shape[1], 0
    sums = dict.fromkeys(("ce", "boundary", "kd"), 0.0)
    overlap, size = np.zeros(nc), np.zeros(nc)
    for i, y, x in np.ndindex(*mask.shape):
        c = int(mask[i, y, x])
        if c == IGNORE:
            continue
        pixels += 1
        sums["ce"] -= math.log(p[i, c, y, x])
        sums["boundary"] += sum(p[i, k, y, x] * phi[i, k - 1, y, x] for k in range(1, nc))
        sums["kd"] += sum(pt[i, k, y, x] * math.log(pt[i, k, y, x] / ps[i, k, y, x]) for k in range(nc))
        overlap[c] += p[i, c, y, x]
        size += p[i, :, y, x] + (np.arange(nc) == c)
    means = {name: total / pixels for name, total in sums.items()}
    return {**means, "dice": float((1 - (2 * overlap + 1) / (size + 1))[1:].sum())}


@pytest.mark.parametrize("nc", [2, 4, 6])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_losses_are_those_of_a_loop_over_the_pixels(nc: int, ignored: float) -> None:
    case = material(nc, ignored=ignored, seed=nc)
    for name, expected in slow_values(*case).items():
        assert value(name, *case).item() == pytest.approx(expected, rel=1e-10), name
    z, mask, _, teacher = case
    assert kd(z, teacher, mask, 3.0).item() == pytest.approx(slow_values(*case, tau=3.0)["kd"], rel=1e-10)


def test_values_by_hand() -> None:
    """Two pixels of three classes, uniform probabilities; the teacher is sure by a factor of 2."""
    z, mask = torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 1]]])
    maps = torch.tensor([[[[1.0, 0.0]], [[3.0, -1.0]]]])
    assert cross_entropy(z, mask).item() == pytest.approx(math.log(3))
    # class 1: overlap 1/3 of 2/3 + 1; class 2: none of 2/3
    assert dice(z, mask).item() == pytest.approx((1 - (2 / 3 + 1) / (5 / 3 + 1)) + (1 - 1 / (2 / 3 + 1)))
    assert boundary(z, maps, mask).item() == pytest.approx((4 / 3 - 1 / 3) / 2)
    teacher = torch.zeros(1, 3, 1, 2)
    teacher[:, 0] = 0.7 * math.log(2)
    assert kd(z, teacher, mask, 0.7).item() == pytest.approx(0.5 * math.log(1.5) + 0.5 * math.log(0.75), rel=1e-5)


def test_perfect_prediction_costs_nothing() -> None:
    _, mask, maps, _ = material(ignored=0.0)
    z = 60.0 * torch.nn.functional.one_hot(mask, 4).movedim(3, 1).double()
    assert 0 <= dice(z, mask) < 1e-6 and 0 <= cross_entropy(z, mask) < 1e-6
    empty = torch.zeros_like(mask)
    nothing = torch.zeros_like(z)
    nothing[:, 0] = 60.0
    assert dice(nothing, empty) < 1e-6, "classes that are neither present nor predicted"
    assert boundary(nothing, maps, empty).abs() < 1e-6, "the background has no distance"
    assert dice(z.roll(1, 1), mask) > 2.5


def test_equal_logits_teach_nothing_and_others_cost() -> None:
    z, mask, _, teacher = material()
    z.requires_grad_()
    same = kd(z, z.detach(), mask, 0.7)
    (found,) = torch.autograd.grad(same, z)
    assert same == 0 and found.abs().max() < 1e-12
    assert kd(z + 5.0, z, mask, 0.7).abs() < 1e-12, "logits are known up to a constant"
    assert kd(z, teacher, mask, 0.7) > 0.1


def test_teacher_gets_no_gradient() -> None:
    z, mask, _, teacher = material()
    teacher.requires_grad_()
    kd(z.requires_grad_(), teacher, mask, 0.7).backward()
    assert z.grad.any() and teacher.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_differences(name: str) -> None:
    z, mask, maps, teacher = material(3, n=1, size=(2, 3))
    mask[0, 1, 1] = IGNORE
    assert torch.autograd.gradcheck(lambda x: value(name, x, mask, maps, teacher), z.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_contribute_nothing(name: str) -> None:
    z, mask, maps, teacher = material()
    gone = (mask == IGNORE)[:, None]
    z.requires_grad_()
    before = value(name, z, mask, maps, teacher)
    (found,) = torch.autograd.grad(before, z)
    assert not (found * gone).any() and found.any()
    changed = [torch.where(gone, torch.full_like(x, 9.0), x) for x in (z, maps, teacher)]
    changed[0][:, 1] += gone[:, 0] * 5.0
    changed[2][:, 2] -= gone[:, 0] * 5.0
    assert value(name, changed[0], mask, *changed[1:]).item() == pytest.approx(before.item(), rel=1e-12)
    # as if the pixels were not there at all
    kept = [x.detach().movedim(1, 3)[mask != IGNORE].T[None, :, None] for x in (z, maps, teacher)]
    alone = value(name, kept[0], mask[mask != IGNORE][None, None], *kept[1:])
    assert alone.item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize("n", [0, 2])
def test_nothing_known_gives_zero_with_a_gradient(n: int) -> None:
    z, mask, maps, teacher = material(n=n)
    z.requires_grad_()
    total, items = segmentation_loss()(z, torch.full_like(mask, IGNORE), maps=maps, teacher=teacher)
    total.backward()
    assert total == 0 and not any(items.values())
    assert z.grad is not None and not z.grad.any()


def test_a_batch_twice_is_no_larger_loss() -> None:
    case = material(ignored=0.1, size=(16, 16))
    double = [torch.cat([x, x]) for x in case]
    for name in NAMES:
        # Dice adds 1 to both sums, which counts less among more pixels
        rel = 0.02 if name == "dice" else 1e-10
        assert value(name, *double).item() == pytest.approx(value(name, *case).item(), rel=rel), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_computed_in_fp32(dtype: torch.dtype) -> None:
    z, mask, maps, teacher = material()
    z, teacher = (50 * x.to(dtype) for x in (z, teacher))
    z.requires_grad_()
    for name in NAMES:
        with torch.autocast("cpu", torch.bfloat16):
            found = value(name, z, mask.to(torch.uint8), maps.float(), teacher)
        assert found.dtype == torch.float32
        (slope,) = torch.autograd.grad(found, z)
        assert torch.isfinite(slope).all()
        expected = value(name, z.double(), mask, maps, teacher.double()).item()
        assert math.isfinite(expected) and found.item() == pytest.approx(expected, rel=1e-4), name


# the weighted sum


def published(z: Tensor, mask: Tensor, maps: Tensor, teacher: Tensor) -> float:
    """The published loss: sums over pixels, with its factors."""
    images, nc, h, w = z.shape
    p = softmax(z.numpy())
    onehot = (mask.numpy()[:, None] == np.arange(nc)[:, None, None]).astype(float)
    ce = -(onehot * np.log(np.maximum(p, 1e-8))).sum() / images
    overlap, size = (p * onehot).sum((0, 2, 3)), (p + onehot).sum((0, 2, 3))
    dice_loss = h * w / images * (1 - (2 * overlap + 1) / (size + 1))[1:].sum()
    boundary_loss = (p[:, 1:] * maps.numpy()).sum() / images
    ps, pt = softmax(z.numpy() / 0.7), softmax(teacher.numpy() / 0.7)
    return float(ce + 0.5 * dice_loss + 1e-4 * boundary_loss + (pt * np.log(pt / ps)).sum())


def test_default_weights_are_the_published_sums_per_pixel() -> None:
    z, mask, maps, teacher = material(n=15, ignored=0.0)
    teacher = z + 0.01 * teacher  # or distillation hides the rest
    expected = published(z, mask, maps, teacher) / (5 * 7)
    exactly, _ = segmentation_loss(dice=0.5 / 15)(z, mask, maps=maps, teacher=teacher)
    assert exactly.item() == pytest.approx(expected, rel=1e-10)
    total, _ = segmentation_loss()(z, mask, maps=maps, teacher=teacher)
    assert total.item() == pytest.approx(expected, rel=1e-4)


def test_items_are_the_weighted_parts() -> None:
    z, mask, maps, teacher = case = material()
    weights = {"ce": 0.5, "dice": 2.0, "boundary": 3.0, "kd": 0.25}
    total, items = segmentation_loss(**weights)(z.requires_grad_(), mask, maps=maps, teacher=teacher)
    assert tuple(items) == NAMES and total.requires_grad
    assert not any(item.requires_grad for item in items.values())
    for name, weight in weights.items():
        assert items[name].item() == pytest.approx(weight * value(name, *case).item())
    assert total.item() == pytest.approx(sum(float(item) for item in items.values()))
    cooler, _ = segmentation_loss(ce=0, dice=0, boundary=0, kd=1, tau=2.0)(z, mask, teacher=teacher)
    assert cooler.item() == pytest.approx(kd(z, teacher, mask, 2.0).item())


@pytest.mark.parametrize("only", NAMES)
def test_loss_of_weight_zero_asks_for_nothing_and_stays_in_the_items(only: str) -> None:
    z, mask, maps, teacher = case = material()
    loss = segmentation_loss(**{name: float(name == only) for name in NAMES})
    needed = {"boundary": {"maps": maps}, "kd": {"teacher": teacher}}.get(only, {})
    total, items = loss(z, mask, **needed)
    assert total.item() == pytest.approx(value(only, *case).item())
    assert tuple(items) == NAMES and [name for name in NAMES if items[name]] == [only]


def test_training_on_the_sum_finds_the_mask() -> None:
    _, mask, maps, _ = material(ignored=0.2)
    z = torch.zeros(2, 4, 5, 7, requires_grad=True)
    loss, optimizer = segmentation_loss(kd=0), torch.optim.Adam([z], lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        total, _ = loss(z, mask, maps=maps)
        total.backward()
        optimizer.step()
    known = mask != IGNORE
    assert torch.equal(z.argmax(1)[known], mask[known]) and not z.movedim(1, 3)[~known].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(segmentation_loss, dice=-1.0), "dice=-1.0 must be a number >= 0"),
        (partial(segmentation_loss, tau=0), "tau=0 must be a number > 0"),
        (partial(segmentation_loss, ce=0, dice=0, boundary=0, kd=0), "at least one of ce, dice, boundary, kd"),
        (lambda: segmentation_loss()(*material()[:2], teacher=material()[3]), "needs distance maps.*set boundary=0"),
        (lambda: segmentation_loss()(*material()[:2], maps=material()[2]), "needs the logits of a teacher.*set kd=0"),
        (lambda: dice(material()[0], material()[1][:, :4]), r"\(2, 4, 5, 7\) and \(2, 4, 7\)"),
        (lambda: dice(material()[0][0], material()[1][0]), r"\(4, 5, 7\) and \(5, 7\)"),
        (lambda: cross_entropy(material()[0], material()[1].float()), "integer class ids, not torch.float32"),
        (lambda: boundary(material()[0], material()[3], material()[1]), r"\(2, 3, 5, 7\) .*, not \(2, 4, 5, 7\)"),
        (lambda: kd(material()[0], material(3)[3], material()[1], 0.7), r"\(2, 4, 5, 7\) and \(2, 3, 5, 7\)"),
    ],
)
def test_wrong_arguments_are_rejected(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_id_without_meaning_is_rejected() -> None:
    z, mask, _, _ = material()
    mask[0, 0, 0] = 4
    with pytest.raises(IndexError, match="Target 4 is out of bounds"):
        cross_entropy(z, mask)
