"""The mathematics of HW-JS."""

from __future__ import annotations

import math

import pytest
import torch

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms import PairShape
from dfssd.distillation.terms.base import standardize
from dfssd.distillation.terms.hwjs import HierarchicalJS, level_weights, spatial_js

LN2 = math.log(2)


def maps(seed: int, *shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def outputs(feats: list[torch.Tensor]) -> Outputs:
    return Outputs(feats, torch.zeros(2, 16, 1), torch.zeros(2, 3, 1), [(1, 1)])


def test_identity_is_zero():
    x = maps(0, 2, 3, 5, 4)
    assert spatial_js(x, x.clone()).abs() < 1e-6


def test_identity_of_identical_networks_from_the_first_step():
    feats = [maps(i, 2, 4, s, s) for i, s in enumerate((8, 4))]
    term = HierarchicalJS(PairShape((4, 4), (4, 4), reg_max=4, nc=3))
    assert term(outputs(feats), outputs([f.clone() for f in feats]), {}).abs() < 1e-6


def test_bound_is_reached_by_disjoint_distributions():
    student, teacher = torch.full((2, 3, 2, 2), -100.0), torch.full((2, 3, 2, 2), -100.0)
    student[..., 0, 0] = 100.0
    teacher[..., 1, 1] = 100.0
    assert spatial_js(student, teacher).item() == pytest.approx(LN2, rel=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_bound_and_symmetry(tau):
    a, b = 3 * maps(1, 2, 3, 4, 4), 3 * maps(2, 2, 3, 4, 4)
    value = spatial_js(a, b, tau)
    assert 0 < value < tau**2 * LN2
    assert value.item() == pytest.approx(spatial_js(b, a, tau).item(), rel=1e-6)


def test_hand_worked_value():
    # P = (3/4, 1/4), Q = (1/4, 3/4), M = (1/2, 1/2): KL(P||M) = KL(Q||M) = ln 2 - H(3/4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    a = torch.tensor([math.log(3.0), 0.0]).view(1, 1, 1, 2)
    assert spatial_js(a, a.flip(-1)).item() == pytest.approx(LN2 - entropy, rel=1e-6)
    # a second channel that agrees halves the mean over channels
    both = [torch.cat([t, torch.zeros_like(t)], 1) for t in (a, a.flip(-1))]
    assert spatial_js(*both).item() == pytest.approx((LN2 - entropy) / 2, rel=1e-6)


def test_temperature_is_applied_to_both_and_squared_outside():
    a, b = maps(1, 1, 2, 3, 3), maps(2, 1, 2, 3, 3)
    assert spatial_js(a, b, 2.0).item() == pytest.approx(4 * spatial_js(a / 2, b / 2).item(), rel=1e-6)


def test_gradcheck():
    a, b = (maps(i, 2, 2, 3, 2, dtype=torch.float64).requires_grad_() for i in (1, 2))
    assert torch.autograd.gradcheck(lambda x, y: spatial_js(x, y, 1.5), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: spatial_js(standardize(x), standardize(y)), (a, b))


def test_gradcheck_of_the_whole_term():
    term = HierarchicalJS(PairShape((2, 3), (4, 3), reg_max=4, nc=3), weights="uniform").double()
    student = [maps(i, 2, c, s, s, dtype=torch.float64).requires_grad_() for i, (c, s) in enumerate([(2, 3), (3, 2)])]
    teacher = [maps(i, 2, c, s, s, dtype=torch.float64) for i, (c, s) in enumerate([(4, 3), (3, 2)], start=5)]
    assert torch.autograd.gradcheck(lambda *s: term(outputs(list(s)), outputs(teacher), {}), tuple(student))


@pytest.mark.parametrize("scale", [1e4, 1e-8])
def test_extreme_values(scale):
    a, b = (maps(1, 2, 3, 4, 4) * scale).requires_grad_(), maps(2, 2, 3, 4, 4) * scale
    value = spatial_js(a, b)
    value.backward()
    assert -1e-6 < value < LN2 + 1e-6
    assert torch.isfinite(a.grad).all()


def test_single_cell_and_empty_batch_are_zero():
    term = HierarchicalJS(PairShape((2,), (3,), reg_max=4, nc=3))
    for n, side in ((1, 1), (0, 4)):
        value = term(outputs([maps(1, n, 2, side, side)]), outputs([maps(2, n, 3, side, side)]), {})
        value.backward()
        assert value == 0


def test_dead_channel_is_finite():
    x = maps(1, 2, 3, 4, 4)
    x[:, 1] = 7.0
    assert torch.isfinite(spatial_js(standardize(x), standardize(maps(2, 2, 3, 4, 4))))


def test_level_weights_sum_to_one_and_carry_no_gradient():
    divergences = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    weights = level_weights(divergences, 0.1)
    assert weights.sum().item() == pytest.approx(1)
    assert not weights.requires_grad
    # softmax(1, 2, 3)
    assert weights.tolist() == pytest.approx([0.0900306, 0.2447285, 0.6652410], rel=1e-5)


def test_level_weights_limits():
    divergences = torch.tensor([0.1, 0.2, 0.3])
    assert level_weights(divergences, 1e-3).tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    assert level_weights(divergences, 1e3).tolist() == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_term_is_the_weighted_mean_of_its_levels():
    torch.manual_seed(0)
    term = HierarchicalJS(PairShape((2, 3), (4, 3), reg_max=4, nc=3), tau=2.0, layer_temperature=0.2)
    student = [maps(1, 2, 2, 4, 4), maps(2, 2, 3, 2, 2)]
    teacher = [maps(3, 2, 4, 4, 4), maps(4, 2, 3, 2, 2)]
    levels = torch.stack(
        [
            spatial_js(standardize(conv(s)), standardize(t), 2.0)
            for conv, s, t in zip(term.align, student, teacher, strict=True)
        ]
    )
    value = term(outputs(student), outputs(teacher), {})
    assert value.item() == pytest.approx((torch.softmax(levels / 0.2, 0) * levels).sum().item(), rel=1e-6)


def test_standardize_is_batch_normalization_of_each_map_by_itself():
    x = 5 * maps(1, 4, 3, 5, 5) + 2
    y = standardize(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert (y.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
    assert torch.allclose(y, standardize(100 * x - 7), atol=1e-4)  # scale and offset of a network do not matter


def test_wide_levels_weigh_no_more_than_narrow_ones():
    a, b = maps(1, 1, 1, 4, 4), maps(2, 1, 1, 4, 4)
    assert spatial_js(a.repeat(1, 64, 1, 1), b.repeat(1, 64, 1, 1)).item() == pytest.approx(spatial_js(a, b).item())


@pytest.mark.parametrize(("a", "b"), [((2, 3, 4, 4), (2, 3, 4, 5)), ((2, 3, 4), (2, 3, 4))])
def test_wrong_shapes_are_rejected(a, b):
    with pytest.raises(ValueError, match="feature maps must have one shape"):
        spatial_js(torch.zeros(a), torch.zeros(b))


def test_wrong_number_of_maps_is_rejected():
    term = HierarchicalJS(PairShape((2,), (3,), reg_max=4, nc=3))
    with pytest.raises(ValueError, match="built for 1 layers but got 2 maps"):
        term(outputs([maps(1, 1, 2, 2, 2)] * 2), outputs([maps(1, 1, 3, 2, 2)]), {})


def test_share_of_the_images_estimates_the_whole():
    """Over many draws the mean of a quarter of the images is that of all; a draw touches a quarter only."""
    feats, others = [maps(0, 16, 4, 8, 8).requires_grad_()], [maps(1, 16, 4, 8, 8)]
    shape = PairShape((4,), (4,), reg_max=4, nc=3)
    torch.manual_seed(0)
    whole, part = HierarchicalJS(shape), HierarchicalJS(shape, images=0.25)
    draws = torch.stack([part(outputs(feats), outputs(others), {}) for _ in range(60)])
    assert draws.std() > 0 and draws.mean().item() == pytest.approx(
        whole(outputs(feats), outputs(others), {}).item(), rel=0.05
    )
    draws[0].backward()
    assert int((feats[0].grad.flatten(1).abs().sum(1) > 0).sum()) == 4


@pytest.mark.parametrize("images", [0, 1.5, True])
def test_share_of_the_images_out_of_range(images):
    with pytest.raises(ValueError, match="images"):
        HierarchicalJS(PairShape((4,), (4,), reg_max=4, nc=3), images=images)
