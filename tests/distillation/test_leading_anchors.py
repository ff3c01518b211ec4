"""Response terms on the anchors of which the teacher is most confident."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from dfssd.distillation.terms import TERMS
from dfssd.distillation.terms.giou import giou_response
from dfssd.distillation.terms.response import cls_response, dfl_response, leading
from tests.distillation.test_response import logits
from tests.distillation.test_terms import SHAPE


def test_the_highest_of_each_image_stay_and_ties_with_the_last_of_them() -> None:
    weight = torch.tensor([[0.1, 0.9, 0.5, 0.4], [0.3, 0.3, 0.3, 0.2]])
    assert leading(weight, 0.5).tolist() == [pytest.approx([0, 0.9, 0.5, 0]), pytest.approx([0.3, 0.3, 0.3, 0])]
    assert (leading(weight, 0.01) > 0).sum(1).tolist() == [1, 3], "at least one"
    assert leading(weight, 1.0) is weight
    assert leading(torch.zeros(0, 4), 0.5).shape == (0, 4)


def terms(scores: Tensor) -> dict[str, tuple[partial[Tensor], Tensor]]:
    """Name -> the term as a function of the student's outputs, and these."""
    boxes = logits(3, 2, 4 * 3, 6)
    return {
        "cls": (partial(cls_response, teacher_scores=scores), logits(5, 2, 2, 6)),
        "dfl": (partial(dfl_response, teacher_boxes=boxes, teacher_scores=scores, reg_max=3), logits(4, 2, 12, 6)),
        "giou": (partial(giou_response, teacher_boxes=boxes, teacher_scores=scores, reg_max=3), logits(4, 2, 12, 6)),
    }


@pytest.mark.parametrize("name", ["cls", "dfl", "giou"])
def test_other_anchors_count_neither_in_the_value_nor_in_the_gradient(name: str) -> None:
    scores = logits(1, 2, 2, 6) + torch.tensor([9.0, 9, 9, -9, -9, -9])  # the first three of six lead
    term, own = terms(scores)[name]
    own.requires_grad_()
    value = term(own, top=0.5)
    value.backward()
    assert value > 0 and (own.grad[..., :3] != 0).any(1).all() and not own.grad[..., 3:].any()
    moved = own.detach().clone()
    moved[..., 3:] *= -3
    assert term(moved, top=0.5) == value
    assert term(moved, top=1.0) != term(own, top=1.0)


@pytest.mark.parametrize("name", ["cls", "dfl", "giou"])
def test_gradcheck_of_the_leading_anchors(name: str) -> None:
    term, own = terms(logits(1, 2, 2, 6))[name]
    assert torch.autograd.gradcheck(partial(term, top=0.5), (own.requires_grad_(),))


def test_hand_worked_value_with_one_leading_anchor() -> None:
    # z_s = 0 (p = 1/2) in both; the teacher has t = 3/4 and 1/4: the first leads
    zs, zt = torch.zeros(1, 1, 2), torch.tensor([[[math.log(3.0), -math.log(3.0)]]])
    # |1/2 - 3/4| * BCE(1/2, 3/4) = ln 2 / 4, over the confidence 3/4, but at least 1
    assert cls_response(zs, zt, top=0.5).item() == pytest.approx(math.log(2) / 4, rel=1e-6)


@pytest.mark.parametrize("name", ["response_cls", "response_dfl", "response_giou"])
@pytest.mark.parametrize("top", [0, -0.1, 1.5, True, "half", math.nan])
def test_no_share_is_refused(name: str, top: object) -> None:
    with pytest.raises(ValueError, match=r"top=.* must be a number > 0 and <= 1"):
        TERMS[name](SHAPE, **{"top": top})
