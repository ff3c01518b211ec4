"""The mathematics of the response terms."""

from __future__ import annotations

import math

import pytest
import torch

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms.response import cls_response, confidence, dfl_response, logit_mse


def logits(seed: int, *shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def outputs(boxes: torch.Tensor, scores: torch.Tensor, sizes: list[int]) -> Outputs:
    return Outputs([], boxes, scores, [(size, 1) for size in sizes])


# class scores


def test_cls_identity_is_zero():
    z = logits(1, 2, 3, 5)
    assert cls_response(z, z.clone()) == 0


def test_cls_is_never_negative_and_grows_with_the_distance():
    zt = logits(1, 2, 3, 5)
    values = [cls_response(zt + d, zt).item() for d in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values) and values[0] == 0


def test_cls_hand_worked_value():
    # one image, one class, two anchors: z_s = 0 (p = 1/2), z_t = ln 3 (t = 3/4) in both
    zs, zt = torch.zeros(1, 1, 2), torch.full((1, 1, 2), math.log(3.0))
    # each anchor |1/2 - 3/4| * BCE(1/2, 3/4) = ln 2 / 4; confidence 3/4 each, together 3/2
    assert cls_response(zs, zt).item() == pytest.approx(2 * (math.log(2) / 4) / 1.5, rel=1e-6)


def test_cls_gradcheck():
    zs, zt = logits(1, 2, 3, 4).requires_grad_(), logits(2, 2, 3, 4)
    assert torch.autograd.gradcheck(lambda z: cls_response(z, zt), (zs,))


def test_cls_gradient_points_to_the_teacher():
    zs, zt = logits(1, 2, 3, 4).requires_grad_(), logits(2, 2, 3, 4)
    cls_response(zs, zt).backward()
    assert (zs.grad.sign() == (zs.detach() - zt).sign()).all()


def test_cls_extreme_and_quiet():
    zs = torch.tensor([[[100.0, -100.0, 0.0]]], requires_grad=True)
    value = cls_response(zs, torch.tensor([[[-100.0, 100.0, 100.0]]]))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(zs.grad).all()
    quiet = torch.full((2, 7, 84), -20.0)
    assert cls_response(quiet, quiet - 1) < 1e-6


# box distributions


def test_dfl_identity_is_zero():
    z = logits(1, 2, 16, 5)
    assert abs(dfl_response(z, z.clone(), logits(2, 2, 3, 5), reg_max=4)) < 1e-12


def test_dfl_ignores_an_offset_of_all_bins():
    z, scores = logits(1, 2, 16, 5), logits(2, 2, 3, 5)
    assert abs(dfl_response(z + 3, z, scores, reg_max=4)) < 1e-12


def test_dfl_bound_of_a_uniform_student():
    # KL(P || uniform over B bins) = ln B - H(P) <= ln B, and the weighted mean of it as well
    zt, scores = 3 * logits(1, 2, 16, 50), logits(2, 2, 3, 50)
    value = dfl_response(torch.zeros_like(zt), zt, scores, reg_max=4)
    assert 0 < value < math.log(4)


def test_dfl_hand_worked_value():
    # two bins: P_t = (3/4, 1/4), P_s = (1/2, 1/2) on two of the four sides, equal on the others
    zt, zs = torch.zeros(1, 8, 3), torch.zeros(1, 8, 3)
    zt[:, [0, 2]] = math.log(3.0)  # channel = side * reg_max + bin: first bin of the first and second side
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    scores = torch.tensor([[[0.0, math.log(3.0), -40.0]]])  # confidences 1/2, 3/4, 0
    assert dfl_response(zs, zt, scores, reg_max=2).item() == pytest.approx(kl / 2, rel=1e-6)
    # below a total of one per image the quotient fades out with the confidence
    scores = torch.tensor([[[0.0, -40.0, -40.0]]])
    assert dfl_response(zs, zt, scores, reg_max=2).item() == pytest.approx(0.5 * kl / 2, rel=1e-6)


def test_dfl_reads_sides_and_bins_in_the_order_of_the_head():
    zt = torch.zeros(1, 8, 1)
    zt[0, 0] = 50.0  # first side: all in bin 0; interleaved reading would spread it over two sides
    zs = zt.clone()
    zs[0, 1] = 50.0  # student: half of it in bin 1
    value = dfl_response(zs, zt, torch.full((1, 1, 1), 50.0), reg_max=2)
    assert value.item() == pytest.approx(math.log(2) / 4, rel=1e-6)


def test_dfl_gradcheck():
    zs, zt, scores = logits(1, 2, 12, 3).requires_grad_(), logits(2, 2, 12, 3), logits(3, 2, 2, 3)
    assert torch.autograd.gradcheck(lambda z: dfl_response(z, zt, scores, 3, temperature=2.0), (zs,))


def test_dfl_in_parts_is_the_same(monkeypatch):
    zs, zt, scores = logits(1, 5, 12, 7).requires_grad_(), logits(2, 5, 12, 7), logits(3, 5, 2, 7)
    whole = dfl_response(zs, zt, scores, 3, temperature=2.0)
    (expected,) = torch.autograd.grad(whole, zs)
    monkeypatch.setattr("dfssd.distillation.terms.response.AT_ONCE", 2 * 12 * 7)  # two images, then two, then one
    parts = dfl_response(zs, zt, scores, 3, temperature=2.0)
    (gradient,) = torch.autograd.grad(parts, zs)
    assert torch.allclose(parts, whole, rtol=1e-12) and torch.allclose(gradient, expected, rtol=1e-12)


def test_dfl_extreme_and_quiet():
    zs = (1e4 * logits(1, 2, 16, 5, dtype=torch.float32)).requires_grad_()
    value = dfl_response(zs, 1e4 * logits(2, 2, 16, 5, dtype=torch.float32), logits(3, 2, 3, 5), reg_max=4)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(zs.grad).all()
    quiet = dfl_response(logits(1, 2, 16, 5), logits(2, 2, 16, 5), torch.full((2, 3, 5), -1e4), reg_max=4)
    assert quiet == 0


# raw outputs


def test_mse_identity_is_zero():
    out = outputs(logits(1, 2, 8, 5), logits(2, 2, 3, 5), [4, 1])
    assert logit_mse(out, out) == 0


def test_mse_bound_of_a_constant_distance():
    a = outputs(logits(1, 2, 8, 21), logits(2, 2, 3, 21), [16, 4, 1])
    b = outputs(a.boxes + 2, a.scores - 2, a.level_sizes)
    assert logit_mse(a, b).item() == pytest.approx(0.25 * 3 * 4)  # one mean of 2^2 per level


def test_mse_hand_worked_value():
    # levels of 2 and 1 anchors, 4 box channels and 1 class: 5 channels
    boxes, scores = torch.zeros(1, 4, 3), torch.zeros(1, 1, 3)
    other_boxes, other_scores = boxes.clone(), scores.clone()
    other_boxes[0, 0, 0] = 1.0  # level 0: 1 / 10
    other_scores[0, 0, 2] = 3.0  # level 1: 9 / 5
    value = logit_mse(outputs(boxes, scores, [2, 1]), outputs(other_boxes, other_scores, [2, 1]))
    assert value.item() == pytest.approx(0.25 * (1 / 10 + 9 / 5))


def test_mse_gradcheck():
    boxes, scores = logits(1, 2, 4, 5).requires_grad_(), logits(2, 2, 3, 5).requires_grad_()
    teacher = outputs(logits(3, 2, 4, 5), logits(4, 2, 3, 5), [4, 1])
    assert torch.autograd.gradcheck(lambda b, s: logit_mse(outputs(b, s, [4, 1]), teacher), (boxes, scores))


def test_mse_extreme_half_precision():
    a = outputs(torch.full((1, 4, 1), 6e4).half(), torch.zeros(1, 1, 1).half(), [1])
    b = outputs(-a.boxes, a.scores, [1])
    value = logit_mse(a, b)  # the squared distance is far beyond fp16
    assert torch.isfinite(value) and value.dtype == torch.float32


# shared


def test_confidence_is_the_best_class():
    scores = torch.tensor([[[-100.0, 0.0], [0.0, math.log(3.0)]]])
    assert confidence(scores).tolist() == [pytest.approx([0.5, 0.75])]


def test_wrong_shapes_are_rejected():
    z = torch.zeros(2, 3, 5)
    with pytest.raises(ValueError, match="class scores must have one shape"):
        cls_response(z, torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="4 \\* reg_max = 16 channels, not 12"):
        dfl_response(torch.zeros(2, 12, 5), torch.zeros(2, 12, 5), z, reg_max=4)
    with pytest.raises(ValueError, match="N=2 and A=6"):
        dfl_response(torch.zeros(2, 16, 6), torch.zeros(2, 16, 6), z, reg_max=4)
    with pytest.raises(ValueError, match="box logits must have one shape"):
        dfl_response(torch.zeros(2, 16), torch.zeros(2, 16), z, reg_max=4)
    out = outputs(torch.zeros(2, 8, 5), z, [4, 2])
    with pytest.raises(ValueError, match=r"\[4, 2\] must add up to the 5 anchors"):
        logit_mse(out, out)
