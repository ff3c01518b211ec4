"""CWD, MGD, mimic, PKD, FGD and LD: their values worked out in another way, identities and limits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from dfssd.distillation.terms import TERMS, PairShape, cwd, fgd, mgd, mimic, pkd
from dfssd.distillation.terms.ld import ld_regions, region_weight, weighted_kl
from dfssd.distillation.terms.mgd import MaskedGenerative
from dfssd.distillation.terms.regions import anchor_boxes
from tests.distillation.test_terms import SHAPE, make_batch, make_outputs


def maps(seed: int, *size: int) -> torch.Tensor:
    shape = size or (2, 3, 4, 4)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_one_level(function):
    """A function of the maps of all levels as one of those of a single level."""
    return lambda student, teacher, *options: function([student], [teacher], *options)


channel_kl, mse, normalized_mse, pearson, attention_distance = (
    of_one_level(f) for f in (cwd.channel_kl, mgd.mse, mimic.normalized_mse, pkd.pearson, fgd.attention_distance)
)


def localization(student, teacher, region, reg_max: int, temperature: float = 10.0) -> torch.Tensor:
    return weighted_kl(student, teacher, region_weight(region), reg_max, temperature)


@pytest.mark.parametrize("distance", [channel_kl, mse, normalized_mse, pearson, attention_distance])
def test_zero_for_equal_maps_positive_else_and_right_gradient(distance) -> None:
    student = maps(1).requires_grad_()
    assert distance(student, student.detach()).item() == pytest.approx(0, abs=1e-6)
    assert distance(student, maps(2)) > 0
    assert torch.autograd.gradcheck(lambda s: distance(s, maps(2)), (student,), atol=1e-4)
    with pytest.raises(ValueError, match="must have one shape"):
        distance(student, maps(2, 2, 4, 4, 4))


def test_cwd_is_the_kl_of_torch() -> None:
    student, teacher, tau = maps(1), maps(2), 4.0
    log_p, q = (student / tau).flatten(2).log_softmax(2), (teacher / tau).flatten(2).softmax(2)
    expected = tau**2 * F.kl_div(log_p.view(6, 16), q.view(6, 16), reduction="batchmean")
    assert channel_kl(student, teacher, tau).item() == pytest.approx(expected.item())
    assert channel_kl(student + 5, teacher).item() == pytest.approx(channel_kl(student, teacher).item())


def test_pkd_is_one_minus_the_correlation() -> None:
    student, teacher = maps(1), maps(2)
    rows = [x.transpose(0, 1).flatten(1) for x in (student, teacher)]
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)])
    assert pearson(student, teacher).item() == pytest.approx((1 - correlation).mean().item(), rel=1e-4)
    assert pearson(student, 3 * student + 2).item() == pytest.approx(0, abs=1e-4)
    assert pearson(student, -student).item() == pytest.approx(2, rel=1e-4)


def test_mimic_of_the_channel_means_is_one() -> None:
    teacher = maps(2) + torch.tensor([0.0, 10.0, -3.0]).view(1, 3, 1, 1).double()
    means = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert normalized_mse(means, teacher).item() == pytest.approx(1, rel=1e-4)
    assert normalized_mse(100 * maps(1), 100 * teacher).item() == pytest.approx(
        normalized_mse(maps(1), teacher).item(), rel=1e-4
    )


def test_mgd_hides_places_from_the_student_only() -> None:
    torch.manual_seed(0)
    term = MaskedGenerative(PairShape((4,), (4,), 16, 3), masked=0.99999)
    student, teacher = maps(1, 1, 4, 4, 4).float(), maps(2, 1, 4, 4, 4).float()
    blind = mse(term.generators[0](torch.zeros_like(student)), teacher)
    assert term.compare_all([student], [teacher], make_batch()).item() == pytest.approx(blind.item())
    open_eyed = MaskedGenerative(PairShape((4,), (4,), 16, 3), masked=0.0)
    value = open_eyed.compare_all([student], [teacher], make_batch())
    assert value == mse(open_eyed.generators[0](student), teacher)


@pytest.mark.parametrize("option", ["background", "attention", "relation"])
def test_every_weight_of_fgd_counts(option: str) -> None:
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    values = []
    for weight in (0.5, 1.5):
        torch.manual_seed(0)
        values.append(TERMS["fgd"](SHAPE, **{option: weight})(student, teacher, make_batch()).item())
    assert values[1] > values[0]


@pytest.mark.parametrize(
    ("term", "option", "values"),
    [
        ("ded", "background", (0.0, 1.0)),
        ("ded", "temperature", (0.5, 5.0)),
        ("drd_pixel", "nodes", (4, 8)),
        ("drd_pixel", "seed", (0, 1)),
        ("drd_instance", "temperature", (0.5, 5.0)),
        ("cwd", "tau", (1.0, 4.0)),
        ("mgd", "masked", (0.0, 0.65)),
        ("ld", "temperature", (1.0, 10.0)),
        ("ld", "valuable", (0.0, 1.0)),
        ("ld", "gamma", (0.0, 0.9)),
    ],
)
def test_every_option_changes_the_value(term: str, option: str, values: tuple[float, float]) -> None:
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    seen = []
    for value in values:
        torch.manual_seed(0)
        seen.append(TERMS[term](SHAPE, **{option: value})(student, teacher, make_batch()).item())
    assert seen[0] != pytest.approx(seen[1], rel=1e-4)


def test_anchor_boxes_are_squares_of_five_cells() -> None:
    boxes = anchor_boxes(((4, 8), (1, 1)))
    assert boxes.shape == (33, 4)
    assert torch.allclose(boxes[0], torch.tensor([0.5 / 8 - 2.5 / 8, 0.5 / 4 - 2.5 / 4, 3 / 8, 3 / 4]))
    assert torch.allclose(boxes[32], torch.tensor([-2.0, -2, 3, 3]))


def test_regions_of_one_box() -> None:
    """A box of the size of the finer level's squares in the middle: its four central anchors are the best."""
    levels = [(16, 16), (8, 8)]
    side = 5 / 16
    box = torch.tensor([[0.5 - side / 2, 0.5 - side / 2, 0.5 + side / 2, 0.5 + side / 2]])
    main, valuable = ld_regions(box, torch.tensor([1]), 2, levels)
    assert not main[0].any() and not valuable[0].any(), "the other image"
    assert not (main & valuable).any()
    fine = main[1, :256].view(16, 16)
    assert fine[7:9, 7:9].all() and fine.sum() <= 9 and not main[1, 256:].all()
    assert valuable[1].any()
    narrow = ld_regions(box, torch.tensor([1]), 2, levels, gamma=0.9)[1]
    assert narrow.sum() < valuable.sum() and not (narrow & ~valuable).any()


def test_no_box_no_regions() -> None:
    main, valuable = ld_regions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 2, [(4, 4)])
    assert main.shape == (2, 16) and not main.any() and not valuable.any()
    assert localization(maps(1, 2, 16, 16), maps(2, 2, 16, 16), main, 4) == 0


def test_localization_by_hand() -> None:
    student, teacher = maps(1, 1, 8, 3), maps(2, 1, 8, 3)
    region = torch.tensor([[True, False, True]])
    total = 0.0
    for anchor in (0, 2):
        for side in range(4):
            log_p, log_q = ((x[0, 2 * side : 2 * side + 2, anchor] / 5).log_softmax(0) for x in (student, teacher))
            total += float((log_q.exp() * (log_q - log_p)).sum()) / 4
    assert localization(student, teacher, region, 2, 5.0).item() == pytest.approx(25 * total / 2)
    assert torch.autograd.gradcheck(lambda s: localization(s, teacher, region, 2), (student.requires_grad_(),))


def test_boxes_of_no_image_at_all_are_fine() -> None:
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    empty = {k: v[:0] for k, v in make_batch().items()}
    for name in ("ded", "drd_instance", "fgd", "ld"):
        value = TERMS[name](dataclasses.replace(SHAPE))(student, teacher, empty)
        assert torch.isfinite(value) and (value > 0) == (name in {"ded", "fgd"}), name
