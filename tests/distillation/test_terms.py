"""What is true of every distillation term, and the names under which recipes find them."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math

import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Conv
from ultralytics.nn.tasks import DetectionModel

from dfssd.config import TERM_OPTIONS, parse_arguments, parse_value
from dfssd.distillation.heads import BRANCHES, TAPS, finish
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms import TERMS, PairShape, Term, TermOption, described_options, term_meanings, term_options
from dfssd.distillation.terms.base import FeatureTerm
from dfssd.runs.configure import configure
from tests.configured import pair
from tests.tiny_detection import TINY

SHAPE = PairShape(
    student_channels=(4, 8),
    teacher_channels=(6, 8),
    reg_max=4,
    nc=3,
    student_taps=dict.fromkeys(TAPS, (4, 5)),
    teacher_taps=dict.fromkeys(TAPS, (6, 5)),
)
LEVELS = (8, 4)
FIXED = {"mgd": {"masked": 0.0}, "sdidd_cls": {"deviations": 0.5}, "sdidd_feature": {"near": 0.1}}
"""Options without which a term draws something at random, or has nothing to do in maps as small as those here."""


def toy_head() -> nn.Module:
    """A frozen head like Ultralytics', with the widths of the teacher of this file."""
    torch.manual_seed(5)
    head = nn.Module()
    for name, outputs in (("cv2", 4 * SHAPE.reg_max), ("cv3", SHAPE.nc)):
        levels = [nn.Sequential(Conv(c, c, 3), Conv(c, c, 3), nn.Conv2d(c, outputs, 1)) for c in (6, 5)]
        setattr(head, name, nn.ModuleList(levels))
    return head.eval().requires_grad_(False)


def make_batch(n: int = 2, seed: int = 3, boxes: int = 3) -> dict[str, torch.Tensor]:
    """Boxes, ``boxes`` in each image."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "cls": torch.arange(n * boxes).remainder(SHAPE.nc).float()[:, None],
        "bboxes": (torch.rand(boxes, 4, generator=generator) * 0.4 + 0.2).repeat(n, 1),
        "batch_idx": torch.arange(n).repeat_interleave(boxes).float(),
        "ignore_bboxes": torch.zeros(0, 4),
        "ignore_batch_idx": torch.zeros(0),
    }


def make_outputs(teacher: bool, seed: int, n: int = 2, scale: float = 1.0, dtype=torch.float32) -> Outputs:
    """Random outputs for the levels of this file, all leaves that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    channels, taps = (SHAPE.teacher_channels, (6, 5)) if teacher else (SHAPE.student_channels, (4, 5))

    def leaf(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * scale).to(dtype).requires_grad_()

    anchors = sum(s * s for s in LEVELS)
    feats = [leaf(n, c, s, s) for c, s in zip(channels, LEVELS, strict=True)]
    return Outputs(
        feats,
        leaf(n, 4 * SHAPE.reg_max, anchors),
        leaf(n, SHAPE.nc, anchors),
        levels=[(s, s) for s in LEVELS],
        hidden={tap: [leaf(n, c, s, s) for c, s in zip(taps, LEVELS, strict=True)] for tap in (("box", 1), ("cls", 1))},
        head=toy_head() if teacher else None,
    )


def changed(outputs: Outputs, change) -> Outputs:
    """The outputs with a function applied to every tensor."""
    return Outputs(
        [change(f) for f in outputs.feats],
        change(outputs.boxes),
        change(outputs.scores),
        outputs.levels,
        {tap: [change(x) for x in maps] for tap, maps in outputs.hidden.items()},
        outputs.head,
    )


def leaves(outputs: Outputs) -> list[torch.Tensor]:
    """All tensors of the outputs."""
    return [*outputs.feats, outputs.boxes, outputs.scores, *(x for maps in outputs.hidden.values() for x in maps)]


def value_of(term: Term, student: Outputs, teacher: Outputs, boxes: int = 3) -> torch.Tensor:
    """Value of a term for outputs of this file."""
    return term(student, teacher, make_batch(len(student.boxes), boxes=boxes))


@pytest.fixture(params=TERMS)
def term(request) -> Term:
    """Each registered term with its default options."""
    torch.manual_seed(0)
    return TERMS[request.param](SHAPE, **FIXED.get(request.param, {}))


FEATURES = [name for name, term in TERMS.items() if issubclass(term, FeatureTerm)]
HAS_GRADIENT = {
    **{name: ["feats"] for name in FEATURES},
    "response_cls": ["scores"],
    "response_dfl": ["boxes"],
    "response_giou": ["boxes"],
    "logit_mse": ["boxes", "scores"],
    "crd_cls": ["hidden scores"],
    "crd_dfl": ["hidden boxes"],
    "crd_giou": ["hidden boxes"],
    "ld": ["boxes"],
    "sdidd_cls": ["scores"],
    "sdidd_box": ["boxes"],
    "erd_box": ["boxes"],
}
"""The outputs that a term gives a gradient to; a term that is not listed may have any, but at least one."""


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


def test_no_option_of_a_term_is_called_like_those_of_all_terms():
    assert not [f"{name}.{option}" for name, own in term_options().items() for option in {*own} & {*TERM_OPTIONS}]


@pytest.mark.parametrize("name", sorted(TERMS))
def test_every_option_of_the_help_can_be_set_and_reaches_the_constructor(name, monkeypatch):
    """On the command line, through the configuration, to the term that a pair builds."""
    built, models = {}, [DetectionModel(TINY, nc=2, verbose=False) for _ in range(2)]

    term = TERMS[name]

    def kept(shape, **options):
        built.update(options)
        return term(shape, **options)

    for option, described in described_options(name).items():
        value = another(described)
        words = ["recipe=distill", "balance=auto", f"{name}.weight=1", f"{name}.share=0.3", f"{name}.{option}={value}"]
        config = configure(parse_arguments(words))
        assert config.terms[name] == {"weight": 1, "schedule": "constant", "share": 0.3, option: value}
        monkeypatch.setitem(TERMS, name, kept)
        pair(*models, terms={name: config.terms[name]})
        monkeypatch.undo()
        assert built[option] == value


def another(option: TermOption):
    """A value that is allowed, other than the default."""
    if option.choices:
        return next(value for value in map(parse_value, option.choices) if value != option.default)
    if isinstance(option.default, int):
        return option.default + 1
    return 0.75 if option.default != 0.75 else 0.5


def test_adapters_are_no_option():
    assert term_options()["pkd"] == term_options()["mimic"] == {}


@pytest.mark.parametrize("name", sorted(TERMS))
def test_every_option_has_a_range_and_a_meaning_for_the_help(name):
    described = described_options(name)
    assert {option: found.default for option, found in described.items()} == term_options()[name]
    for option, found in described.items():
        assert found.meaning.endswith(".") and found.allowed not in {"", "float", "int", "str", "bool"}, option


def test_described_option_by_hand():
    assert described_options("mgd")["masked"] == TermOption(
        0.65, "a number >= 0 and < 1", "Share of the places that are hidden, [0, 1), drawn anew for every image."
    )
    described = described_options("hwjs")["weights"]
    assert (described.allowed, described.choices) == ("softmax, uniform", ("softmax", "uniform"))
    assert described_options("response_cls")["apart"].choices == ("true", "false")


def test_meanings_are_one_sentence_each():
    assert all(meaning.endswith(".") and len(meaning) < 120 for meaning in term_meanings().values())
    assert len(set(term_meanings().values())) == len(TERMS)


@pytest.mark.parametrize("name", TERMS)
def test_unknown_option_fails(name):
    with pytest.raises(TypeError, match="bogus"):
        TERMS[name](SHAPE, **{"bogus": 1})


def test_value_is_a_finite_scalar_in_fp32(term):
    value = value_of(term, make_outputs(False, 1), make_outputs(True, 2))
    assert value.shape == () and value.dtype == torch.float32
    assert torch.isfinite(value) and value > 0


def test_gradient_reaches_student_and_adapters_not_teacher(term):
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    value_of(term, student, teacher).backward()
    grads = [t.grad for t in leaves(student) if t.grad is not None]
    assert grads and all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in grads)
    assert all(t.grad is None for t in leaves(teacher))
    assert all(p.grad is None for p in teacher.head.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())


def test_which_outputs_get_a_gradient_from_each_term():
    found = {}
    for name, term in TERMS.items():
        student = make_outputs(False, 1)
        value_of(term(SHAPE), student, make_outputs(True, 2)).backward()
        parts = {
            "feats": student.feats,
            "boxes": [student.boxes],
            "scores": [student.scores],
            "hidden boxes": student.hidden["box", 1],
            "hidden scores": student.hidden["cls", 1],
        }
        found[name] = [part for part, tensors in parts.items() if all(t.grad is not None for t in tensors)]
    assert all(found.values())
    assert {name: found[name] for name in HAS_GRADIENT} == HAS_GRADIENT


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_under_autocast(term, dtype):
    student, teacher = make_outputs(False, 1, dtype=dtype), make_outputs(True, 2, dtype=dtype)
    exact = value_of(term, *(changed(o, torch.Tensor.float) for o in (student, teacher)))
    with torch.autocast("cpu", dtype):
        value = value_of(term, student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.02)
    value.backward()
    assert any(t.grad is not None and t.grad.dtype == dtype for t in leaves(student))


@pytest.mark.parametrize("boxes", [0, 1, 3])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e4])
def test_extreme_outputs_stay_finite(term, scale, boxes):
    student = make_outputs(False, 1, scale=scale)
    value = value_of(term, student, make_outputs(True, 2, scale=scale), boxes)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(t.grad).all() for t in leaves(student) if t.grad is not None)
    assert all(torch.isfinite(p.grad).all() for p in term.parameters() if p.grad is not None)


def test_empty_batch_is_zero_and_not_nan(term):
    value = value_of(term, make_outputs(False, 1, n=0), make_outputs(True, 2, n=0))
    value.backward()
    assert value == 0


def test_value_does_not_depend_on_batch_size(term):
    """The same images twice give the same value; the factor N of Ultralytics' batch loss is applied outside."""
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    once = value_of(term, student, teacher)
    twice = value_of(term, *(changed(o, lambda x: torch.cat([x, x])) for o in (student, teacher)))
    # the unbiased standard deviation of align_scale knows the number of places
    assert twice.item() == pytest.approx(once.item(), rel=2e-2 if term.taps else 1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_terms_that_are_zero_without_boxes_declare_it(name):
    for options in (FIXED.get(name, {}), {"background": 0.0}) if name == "ded" else (FIXED.get(name, {}),):
        term = TERMS[name](SHAPE, **options)
        value = value_of(term, make_outputs(False, 1), make_outputs(True, 2), boxes=0)
        assert (value == 0) == term.needs_boxes, (name, options)


def test_order_of_the_boxes_does_not_matter(term):
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    batch = make_batch()
    other = torch.tensor([2, 0, 1, 4, 5, 3])
    mixed = {**batch, **{k: batch[k][other] for k in ("bboxes", "batch_idx")}}
    values = [term(student, teacher, b).item() for b in (batch, mixed)]
    assert values[1] == pytest.approx(values[0], rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_terms_can_be_minimized_until_they_vanish(name):
    """Gradient descent on the student's outputs lowers each term: the sign of the gradient is right."""
    torch.manual_seed(0)
    term = TERMS[name](SHAPE, **FIXED.get(name, {}))
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    if name.startswith("crd"):  # the outputs of a head must fit its inputs
        said = {branch: finish(teacher.head, (branch, 1), teacher.hidden[branch, 1]).detach() for branch in BRANCHES}
        teacher = dataclasses.replace(teacher, boxes=20 * said["box"], scores=20 * said["cls"])
        for branch in BRANCHES.values():
            for level in getattr(teacher.head, branch):
                level[-1].weight.mul_(20)
                level[-1].bias.mul_(20)
    optimizer = torch.optim.Adam(itertools.chain(leaves(student), term.parameters()), lr=0.05)
    values = []
    for _ in range(200):
        optimizer.zero_grad()
        value = value_of(term, student, teacher)
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
        ("crd_cls", {"stage": 3}, "stage=3 must be one of: 0, 1, 2"),
        ("crd_cls", {"stage": 1.0}, "stage=1.0 must be one of: 0, 1, 2"),
        ("ded", {"background": -0.1}, "background=-0.1 must be a number >= 0"),
        ("response_cls", {"apart": 1}, "apart=1 must be true or false"),
        ("ded", {"temperature": 0}, "temperature=0 must be a number > 0"),
        ("drd_pixel", {"graphs": "new"}, "graphs=new must be one of: fixed, resample"),
        ("drd_pixel", {"nodes": 0}, "nodes=0 must be a whole number >= 1"),
        ("drd_pixel", {"nodes": 2.5}, "nodes=2.5 must be a whole number >= 1"),
        ("drd_pixel", {"seed": "x"}, "seed=x must be a whole number >= 0"),
        ("cwd", {"tau": 0}, "tau=0 must be a number > 0"),
        ("mgd", {"masked": 1}, "masked=1 must be a number >= 0 and < 1"),
        ("fgd", {"attention": "all"}, "attention=all must be a number"),
        ("ld", {"gamma": 1.0}, "gamma=1.0 must be a number >= 0 and < 1"),
    ],
)
def test_wrong_option_values_are_rejected(name, options, message):
    with pytest.raises(ValueError, match=message):
        TERMS[name](SHAPE, **options)


@pytest.mark.parametrize("name", ["response_dfl", "crd_dfl", "ld"])
def test_head_without_box_distribution_is_reported(name):
    assert TERMS[name].needs_bins
    with pytest.raises(ValueError, match="reg_max is 1"):
        TERMS[name](dataclasses.replace(SHAPE, reg_max=1))


@pytest.mark.parametrize("name", FEATURES)
def test_different_numbers_of_layers_are_rejected(name):
    with pytest.raises(ValueError, match="not 2 and 1"):
        TERMS[name](PairShape((4, 8), (6,), reg_max=4, nc=3))
