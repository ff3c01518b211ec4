"""How many operators each term dispatches, forward and backward, and that none of them makes the host wait."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from dfssd.benchmark.operators import Operators, count_operators
from dfssd.distillation.heads import TAPS, tap_channels, tapped
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.pair import for_inference
from dfssd.distillation.terms import TERMS, PairShape

IMAGES, SIZE, CLASSES, BOXES = 4, 64, 7, 3

LIMITS = {
    "response_giou": 70,
    "crd_cls": 62,
    "crd_dfl": 56,
    "crd_giou": 97,
    "ded": 110,
    "ded_structure": 74,
    "drd_pixel": 92,
    "drd_instance": 146,
    "cwd": 28,
    "fgd": 330,
    "ld": 108,
    "mgd": 50,
    "mimic": 28,
    "pkd": 30,
    "sdidd_cls": 22,
    "sdidd_box": 88,
    "sdidd_feature": 98,
    "erd_box": 70,
}
"""Operators of a term alone, with its adapters, on three levels. The backbone's gradient is one more for each map."""

TSKD = ("crd_cls", "crd_dfl", "ded", "ded_structure", "drd_pixel", "drd_instance")
MOST_OF_TSKD = 540

WAITS = {"erd_box": 2}
"""How many boxes non-maximum suppression compares is known to the device alone."""


def outputs(network: DetectionModel, *, leaves: bool) -> Outputs:
    """What terms read of a network for random images; tensors that want a gradient, if they are leaves."""
    head = network.model[-1]
    torch.manual_seed(1)
    with torch.no_grad(), tapped(head, TAPS) as hidden:
        raw = network(torch.rand(IMAGES, 3, SIZE, SIZE))[1]

    def made(x: Tensor) -> Tensor:
        return (x + 0.1 * torch.randn(x.shape)).requires_grad_(leaves)

    return Outputs(
        feats=[made(x) for x in raw["feats"]],
        boxes=made(raw["boxes"]),
        scores=made(raw["scores"]),
        levels=[(x.shape[2], x.shape[3]) for x in raw["feats"]],
        hidden={tap: [made(x) for x in maps] for tap, maps in hidden.items()},
        head=head,
    )


@functools.cache
def networks() -> tuple[Outputs, Outputs, PairShape]:
    """Outputs of the pair of the recipes, with the widths of yolov8n and yolov8s."""
    student = DetectionModel("yolov8n.yaml", nc=CLASSES, verbose=False).eval()
    teacher = for_inference(DetectionModel("yolov8s.yaml", nc=CLASSES, verbose=False).eval().requires_grad_(False))
    own, theirs = outputs(student, leaves=True), outputs(teacher, leaves=False)
    shape = PairShape(
        tuple(x.shape[1] for x in own.feats),
        tuple(x.shape[1] for x in theirs.feats),
        16,
        CLASSES,
        tap_channels(student.model[-1]),
        tap_channels(teacher.model[-1]),
    )
    return own, theirs, shape


def boxes(counts: Sequence[int]) -> dict[str, Tensor]:
    """A batch with so many boxes in each image, and two ignored ones in every second."""
    generator = torch.Generator().manual_seed(0)
    ignored = 2 * (len(counts) // 2)
    return {
        "bboxes": torch.rand(sum(counts), 4, generator=generator) * 0.4 + 0.2,
        "batch_idx": torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).float(),
        "ignore_bboxes": torch.rand(ignored, 4, generator=generator) * 0.4 + 0.2,
        "ignore_batch_idx": torch.arange(0, len(counts) // 2 * 2, 2).repeat_interleave(2).float(),
    }


def counted(name: str, counts: Sequence[int] = (BOXES,) * IMAGES) -> Operators:
    """Operators of one term, after a first call that builds what is kept."""
    own, theirs, shape = networks()
    torch.manual_seed(0)
    term, batch = TERMS[name](shape), boxes(counts)

    def run() -> None:
        inputs = [*own.feats, own.boxes, own.scores, *(x for maps in own.hidden.values() for x in maps)]
        torch.autograd.grad(term(own, theirs, batch), [*inputs, *term.parameters()], allow_unused=True)

    run()
    return count_operators(run)


@pytest.mark.parametrize("name", LIMITS)
def test_operators_of_each_term(name: str) -> None:
    found = counted(name)
    assert found.launched <= LIMITS[name]
    assert found.launched > 0.8 * LIMITS[name], "a limit that no longer limits"
    assert found.waits <= WAITS.get(name, 0)


def test_limits_cover_all_terms_but_those_of_the_basis() -> None:
    assert set(TERMS) - set(LIMITS) == {"hwjs", "response_cls", "response_dfl", "logit_mse"}


def test_operators_of_tskd() -> None:
    assert sum(counted(name).launched for name in TSKD) <= MOST_OF_TSKD


@pytest.mark.parametrize("name", ["ded", "drd_instance", "fgd", "ld", "sdidd_box", "sdidd_feature"])
def test_operators_do_not_depend_on_the_boxes(name: str) -> None:
    """Neither on their number nor on how many an image has; a few more where there are more than take part."""
    few, more = counted(name, (1, 0, 2, 0)), counted(name, (20, 0, 31, 2))
    assert more.launched == few.launched and more.waits == 0
    assert counted(name, (80, 0, 1, 2)).launched <= few.launched + 12


def test_kept_for_the_backward_pass_is_one_map_per_term() -> None:
    """Besides the inputs of the adapters, which the network keeps anyway."""
    own, theirs, shape = networks()
    largest = sum(x.numel() for x in theirs.feats)
    batch = boxes((BOXES,) * IMAGES)
    for name in ("ded", "ded_structure", "drd_pixel", "drd_instance", "cwd", "pkd", "mimic"):
        term = TERMS[name](shape)
        kept: dict[int, int] = {}
        known = {x.data_ptr() for x in [*own.feats, *term.parameters()]}

        def keep(x: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            value = term(own, theirs, batch)
        assert value.requires_grad
        assert 0 < sum(size for place, size in kept.items() if place not in known) <= 1.01 * largest, name
