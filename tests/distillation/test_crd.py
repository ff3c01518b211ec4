"""CRD: what passes through the teacher's head, where the gradient goes, and which pairs it works for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import generalized_box_iou
from ultralytics.nn.tasks import DetectionModel

from dfssd.distillation.heads import BRANCHES, TAPS, finish, tap_channels, tapped
from dfssd.distillation.pair import DistillationPair, for_inference, state_hash
from dfssd.distillation.terms.crd import align_scale
from dfssd.distillation.terms.giou import distances, giou_response
from tests.configured import pair as build_pair
from tests.distillation import slow_terms as slow
from tests.distillation.test_pair import make_batch, model

PAIRS = [("yolov8s", "yolov8n"), ("yolov8m", "yolov8s"), ("yolov8l", "yolov8n"), ("yolo11s", "yolo11n")]
FLAT = ("yolo26s", "yolo26n")
"""A pair whose heads have no box distribution."""


def trained(network: DetectionModel) -> DetectionModel:
    """A network with normalizations that are not the identity and with confident anchors, as training leaves it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(std=0.1)
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        for branch in BRANCHES.values():
            for level in getattr(network.model[-1], branch):
                level[-1].weight.normal_(std=0.5)
                level[-1].bias.zero_()
    return network.eval()


def pair_of(teacher: str, student: str, *names: str, **options) -> DistillationPair:
    terms = {name: {"weight": 1.0, "schedule": "constant", "share": 0.2, **options} for name in names}
    made = build_pair(trained(model(f"{teacher}.yaml")), trained(model(f"{student}.yaml")), terms=terms)
    return made.train()


def alone(pair: DistillationPair, name: str) -> None:
    """Backward pass of one term alone."""
    pair.zero_grad(set_to_none=True)
    vector, items = pair(make_batch([True, False]))
    vector[list(items).index(name)].backward()


def touched(pair: DistillationPair) -> set[str]:
    """The parts of the student that have a gradient: backbone, neck, and stages of the head."""
    head = len(pair.student_model.model) - 1
    found = set()
    for name, parameter in pair.student_model.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            continue
        layer, _, rest = name.removeprefix("model.").partition(".")
        if int(layer) < head:
            found.add("backbone" if int(layer) < 10 else "neck")
        else:
            branch, _, stage = rest.split(".")[:3]
            found.add(f"{branch} stage {stage}")
    return found


@pytest.mark.parametrize(
    ("name", "stage", "expected"),
    [
        ("crd_cls", 0, {"backbone", "neck"}),
        ("crd_cls", 1, {"backbone", "neck", "cv3 stage 0"}),
        ("crd_cls", 2, {"backbone", "neck", "cv3 stage 0", "cv3 stage 1"}),
        ("crd_dfl", 1, {"backbone", "neck", "cv2 stage 0"}),
        ("crd_giou", 1, {"backbone", "neck", "cv2 stage 0"}),
        ("crd_giou", 2, {"backbone", "neck", "cv2 stage 0", "cv2 stage 1"}),
    ],
)
def test_gradient_routing(name: str, stage: int, expected: set[str]) -> None:
    pair = pair_of("yolov8s", "yolov8n", name, stage=stage)
    before = state_hash(pair.teacher_model)
    alone(pair, name)
    assert touched(pair) == expected
    optimizer = torch.optim.SGD([p for p in pair.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.step()
        alone(pair, name)
    assert all(p.grad is None for p in pair.teacher_model.parameters())
    assert state_hash(pair.teacher_model) == before
    assert all(p.grad is not None and p.grad.any() for p in pair.projector.parameters())


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n"])
def test_own_maps_give_own_output(name: str, folded: bool, stage: int) -> None:
    """The student is the teacher: r equals z_t and each term is 0, whether or not the normalization is folded."""
    network = trained(model(f"{name}.yaml"))
    if folded:
        network = for_inference(network)
    head = network.model[-1]
    image = torch.rand(2, 3, 64, 64)
    taps = [(branch, stage) for branch in BRANCHES]
    with torch.no_grad(), tapped(head, taps) as hidden:
        raw = network(image)[1]
    for branch, output in (("box", "boxes"), ("cls", "scores")):
        maps = align_scale(hidden[branch, stage], hidden[branch, stage])
        torch.testing.assert_close(finish(head, (branch, stage), maps), raw[output], rtol=1e-3, atol=1e-4)
        assert raw[output].std() > 0.1


def test_same_networks_have_no_difference() -> None:
    terms = {name: {"weight": 1.0, "schedule": "constant"} for name in ("crd_cls", "crd_dfl", "crd_giou")}
    pair = build_pair(trained(model("yolov8n.yaml")), trained(model("yolov8n.yaml")), terms=terms)
    pair.train()
    for module in pair.student_model.modules():  # with running statistics, like the teacher
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not list(pair.projector.parameters()), "heads of equal width need no adapter"
    pair(make_batch([True, False]))
    assert all(value < 1e-6 for value in pair.values.values()), pair.values


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_pairs(teacher: str, student: str) -> None:
    names = ("crd_cls", "crd_dfl", "crd_giou", "ded", "ded_structure", "drd_pixel", "drd_instance")
    pair = pair_of(teacher, student, *names)
    vector, _ = pair(make_batch([True, False]))
    assert torch.isfinite(vector).all() and all(pair.values[name] > 0 for name in names)
    vector.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in pair.projector.parameters())


def test_pair_without_box_distribution() -> None:
    pair = pair_of(*FLAT, "crd_cls", "crd_giou", "ded", "drd_instance")
    vector, _ = pair(make_batch([True, False]))
    assert torch.isfinite(vector).all() and all(value > 0 for value in pair.values.values())
    with pytest.raises(ValueError, match="box distributions is needed"):
        pair_of(*FLAT, "crd_dfl")


def test_hooks_are_gone_after_the_step_and_after_an_error() -> None:
    pair = pair_of("yolov8s", "yolov8n", "crd_cls", "crd_dfl")

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pair.modules())

    before = hooks()
    pair(make_batch([True]))
    assert hooks() == before
    with pytest.raises(KeyError):
        pair({"img": torch.rand(1, 3, 64, 64)})
    assert hooks() == before


def test_taps_hold_what_comes_before_the_activation() -> None:
    """Ultralytics' activations work in place; a reference to their input would show their output."""
    network = trained(model("yolov8n.yaml"))
    head = network.model[-1]
    with torch.no_grad(), tapped(head, TAPS) as hidden:
        raw = network(torch.rand(1, 3, 64, 64))[1]
    with torch.no_grad():
        expected = [level[0].bn(level[0].conv(feat)) for level, feat in zip(head.cv3, raw["feats"], strict=True)]
    assert all(torch.equal(x, y) and x.min() < 0 for x, y in zip(hidden["cls", 1], expected, strict=True))
    assert all(torch.equal(x, feat) for x, feat in zip(hidden["box", 0], raw["feats"], strict=True))
    channels = tap_channels(head)
    assert {tap: tuple(x.shape[1] for x in maps) for tap, maps in hidden.items()} == channels


def test_align_scale_by_hand() -> None:
    student = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 7.0]]]])  # mean 4, unbiased std sqrt(20/3)
    teacher = torch.tensor([[[[10.0, 10.0]]], [[[12.0, 12.0]]]])  # mean 11, unbiased std sqrt(4/3)
    expected = (student - 4) / (20 / 3) ** 0.5 * (4 / 3) ** 0.5 + 11
    constant = torch.full_like(student, 3.0, requires_grad=True)
    align_scale([constant], [teacher])[0][0, 0, 0, 0].backward()
    assert constant.grad.abs().max() < 2e3, "the gradient of a constant channel is not multiplied by a million"
    torch.testing.assert_close(align_scale([student], [teacher])[0], expected)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    other = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: align_scale([s], [other])[0], (x,))
    torch.testing.assert_close(align_scale([x], [other])[0], slow.align_scale(x, other))
    assert torch.allclose(align_scale([5 * x - 2], [x])[0], x, atol=1e-4), "nor scale and offset of the student"


def test_distances_are_the_means_of_the_bins() -> None:
    logits = torch.full((1, 4 * 3, 1), -40.0)
    for side, bin_ in enumerate((0, 1, 2, 2)):
        logits[0, side * 3 + bin_] = 40.0
    assert distances(logits, 3).flatten().tolist() == pytest.approx([0, 1, 2, 2])
    flat = distances(torch.tensor([2.0, -3.0, 0.0, 1.0]).view(1, 4, 1), 1)
    assert flat.flatten().tolist() == pytest.approx([2, 0.01, 0.01, 1])


def test_giou_by_hand() -> None:
    own, theirs = torch.tensor([1.0, 1, 1, 1]).view(1, 4, 1), torch.tensor([1.0, 1, 3, 1]).view(1, 4, 1)
    boxes = torch.tensor([[-1.0, -1, 1, 1], [-1, -1, 3, 1]])
    gap = 1 - generalized_box_iou(boxes[:1], boxes[1:]).item()
    assert gap == pytest.approx(0.5)
    scores = torch.full((1, 2, 1), 30.0)
    assert giou_response(own, theirs, scores, 1).item() == pytest.approx(gap)
    assert giou_response(own, own, scores, 1) == 0
    assert giou_response(own, theirs, -scores, 1) < 1e-6, "where the teacher detects nothing there is no loss"
    inside_out = giou_response(-5 * own, own, scores, 1)
    assert 0.99 <= inside_out <= 2, "two negative sides make a positive area, but no good box"
    lost = torch.full((1, 4, 1), -0.5, requires_grad=True)
    giou_response(lost, theirs, scores, 1).backward()
    assert (lost.grad < 0).all(), "and it is led out of there"
    generator = torch.Generator().manual_seed(0)
    raw, other = (torch.randn(2, 8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    z = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: giou_response(x, other, z, 2), (raw.requires_grad_(),))
