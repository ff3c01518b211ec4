"""What is true of every distillation term, and the names under which recipes find them."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms import TERMS, PairShape, Term, term_meanings, term_options

SHAPE = PairShape(student_channels=(4, 8), teacher_channels=(6, 8), reg_max=4, nc=3)
LEVELS = (8, 4)


def make_outputs(channels: tuple[int, ...], seed: int, n: int = 2, scale: float = 1.0, dtype=torch.float32) -> Outputs:
    """Random outputs for the levels of this file, all leaves that want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * scale).to(dtype).requires_grad_()

    anchors = sum(s * s for s in LEVELS)
    feats = [leaf(n, c, s, s) for c, s in zip(channels, LEVELS, strict=True)]
    return Outputs(
        feats, leaf(n, 4 * SHAPE.reg_max, anchors), leaf(n, SHAPE.nc, anchors), level_sizes=[s * s for s in LEVELS]
    )


def leaves(outputs: Outputs) -> list[torch.Tensor]:
    """All tensors of the outputs."""
    return [*outputs.feats, outputs.boxes, outputs.scores]


@pytest.fixture(params=TERMS)
def term(request) -> Term:
    """Each registered term with its default options."""
    torch.manual_seed(0)
    return TERMS[request.param](SHAPE)


def test_registered_names():
    assert list(TERMS) == ["hwjs", "response_cls", "response_dfl", "logit_mse"]


def test_options_can_be_read_from_the_signature():
    assert term_options()["hwjs"] == {
        "tau": 1.0,
        "layer_temperature": 0.1,
        "weights": "softmax",
        "images": 1.0,
    }
    for term in TERMS.values():
        first, *options = inspect.signature(term).parameters.values()
        assert first.name == "shape"
        for option in options:
            assert option.kind is option.KEYWORD_ONLY
            assert option.default is not option.empty
            assert option.annotation is not option.empty


def test_meanings_are_one_sentence_each():
    assert all(meaning.endswith(".") and len(meaning) < 120 for meaning in term_meanings().values())
    assert len(set(term_meanings().values())) == len(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_unknown_option_fails(name):
    with pytest.raises(TypeError, match="bogus"):
        TERMS[name](SHAPE, bogus=1)


def test_value_is_a_finite_scalar_in_fp32(term):
    value = term(make_outputs(SHAPE.student_channels, 1), make_outputs(SHAPE.teacher_channels, 2), {})
    assert value.shape == () and value.dtype == torch.float32
    assert torch.isfinite(value) and value > 0


def test_gradient_reaches_student_and_adapters_not_teacher(term):
    student, teacher = make_outputs(SHAPE.student_channels, 1), make_outputs(SHAPE.teacher_channels, 2)
    term(student, teacher, {}).backward()
    grads = [t.grad for t in leaves(student) if t.grad is not None]
    assert grads and all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in grads)
    assert all(t.grad is None for t in leaves(teacher))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())


def test_which_outputs_each_term_teaches():
    taught = {}
    for name, term in TERMS.items():
        student = make_outputs(SHAPE.student_channels, 1)
        term(SHAPE)(student, make_outputs(SHAPE.teacher_channels, 2), {}).backward()
        taught[name] = [t.grad is not None for t in leaves(student)]
    assert taught == {
        "hwjs": [True, True, False, False],
        "response_cls": [False, False, False, True],
        "response_dfl": [False, False, True, False],
        "logit_mse": [False, False, True, True],
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_under_autocast(term, dtype):
    student = make_outputs(SHAPE.student_channels, 1, dtype=dtype)
    teacher = make_outputs(SHAPE.teacher_channels, 2, dtype=dtype)
    exact = term(*(Outputs([f.float() for f in o.feats], o.boxes.float(), o.scores.float(), o.level_sizes)
                   for o in (student, teacher)), {})  # fmt: skip
    with torch.autocast("cpu", dtype):
        value = term(student, teacher, {})
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.02)
    value.backward()
    assert any(t.grad is not None and t.grad.dtype == dtype for t in leaves(student))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4])
def test_extreme_outputs_stay_finite(term, scale):
    student = make_outputs(SHAPE.student_channels, 1, scale=scale)
    value = term(student, make_outputs(SHAPE.teacher_channels, 2, scale=scale), {})
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(t.grad).all() for t in leaves(student) if t.grad is not None)


def test_empty_batch_is_zero_and_not_nan(term):
    student = make_outputs(SHAPE.student_channels, 1, n=0)
    value = term(student, make_outputs(SHAPE.teacher_channels, 2, n=0), {})
    value.backward()
    assert value == 0


def test_value_does_not_depend_on_batch_size(term):
    """The same images twice give the same value; the factor N of Ultralytics' batch loss is applied outside."""
    student, teacher = make_outputs(SHAPE.student_channels, 1), make_outputs(SHAPE.teacher_channels, 2)
    once = term(student, teacher, {})
    twice = term(
        *(
            Outputs(
                [f.repeat(2, 1, 1, 1) for f in o.feats], o.boxes.repeat(2, 1, 1), o.scores.repeat(2, 1, 1), [64, 16]
            )
            for o in (student, teacher)
        ),
        {},
    )
    assert twice.item() == pytest.approx(once.item(), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_terms_can_be_taught_until_they_vanish(name):
    """A few steps of gradient descent on the student's outputs lower each term: the sign of the gradient is right."""
    torch.manual_seed(0)
    term = TERMS[name](SHAPE)
    student, teacher = make_outputs(SHAPE.student_channels, 1), make_outputs(SHAPE.teacher_channels, 2)
    optimizer = torch.optim.Adam(itertools.chain(leaves(student), term.parameters()), lr=0.05)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = term(student, teacher, {})
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.3 * values[0]
    assert not any(math.isnan(v) for v in values)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hwjs", {"tau": 0}, "tau=0 must be a number > 0"),
        ("hwjs", {"tau": True}, "tau=True must be a number > 0"),
        ("hwjs", {"tau": float("nan")}, "tau=nan must be a number > 0"),
        ("hwjs", {"layer_temperature": "hot"}, "layer_temperature=hot must be a number > 0"),
        ("hwjs", {"weights": "hard"}, "weights=hard must be one of: softmax, uniform"),
        ("response_dfl", {"temperature": -1}, "temperature=-1 must be a number > 0"),
    ],
)
def test_wrong_option_values_are_told(name, options, message):
    with pytest.raises(ValueError, match=message):
        TERMS[name](SHAPE, **options)


def test_head_without_box_distribution_is_told():
    with pytest.raises(ValueError, match="reg_max is 1"):
        TERMS["response_dfl"](PairShape((4,), (4,), reg_max=1, nc=3))


def test_different_numbers_of_layers_are_told():
    with pytest.raises(ValueError, match="not 2 and 1"):
        TERMS["hwjs"](PairShape((4, 8), (6,), reg_max=4, nc=3))
