"""The forward passes: what they read of a network, and that a callable with the same maps may stand in for one."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

from dfssd.benchmark.operators import count_operators
from dfssd.distillation.forward import ForwardPass, Maps, level_sizes, round_weights
from dfssd.distillation.heads import TAPS
from dfssd.distillation.pair import for_inference
from tests.distillation.test_pair import make_batch, make_pair, model


def hooks(network: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
@pytest.mark.parametrize("training", [True, False])
def test_maps_are_those_of_the_network_alone(name: str, training: bool) -> None:
    network = model(name).train(training)
    image = torch.rand(2, 3, 64, 96)
    head = network.model[-1]
    statistics = {k: v.clone() for k, v in network.state_dict().items()}
    maps = ForwardPass(network, head.f, TAPS)(image)
    assert head.training == training and hooks(network) == 0
    network.load_state_dict(statistics)
    raw = network(image)
    raw = raw if training else raw[1]
    branches = [raw["one2many"], raw["one2one"]] if "one2many" in raw else [raw]
    assert len(maps.heads) == len(branches)
    for got, wanted in zip(maps.heads, branches, strict=True):
        assert torch.equal(got["boxes"], wanted["boxes"]) and torch.equal(got["scores"], wanted["scores"])
    assert all(torch.equal(a, b) for a, b in zip(maps.feats, branches[0]["feats"], strict=True))
    assert level_sizes(image, [8, 16, 32]) == [tuple(x.shape[2:]) for x in maps.feats]
    assert all(len(maps.hidden[tap]) == 3 for tap in TAPS)
    assert all(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(maps)), "nothing but tensors leaves a pass"


def test_frozen_network_gives_no_gradient_and_the_other_one_does() -> None:
    network, image = model("yolov8n.yaml"), torch.rand(1, 3, 64, 64)
    for frozen in (True, False):
        maps = ForwardPass(network, (4,), frozen=frozen)(image)
        assert all(leaf.requires_grad != frozen for leaf in tree_leaves(maps))


def test_hooks_are_gone_after_an_error() -> None:
    network = model("yolov8n.yaml").eval()
    with pytest.raises(RuntimeError):
        ForwardPass(network, (4,), TAPS)(torch.rand(1, 5, 64, 64))
    assert hooks(network) == 0 and not network.model[-1].training


def test_callable_stands_in_for_a_pass_except_where_gradients_are_measured() -> None:
    pair = make_pair()
    batch, calls = make_batch([True, False]), []

    def stand_in(images: torch.Tensor) -> Maps:
        calls.append(tuple(images.shape))
        return pair.passes["teacher"](images)

    expected = pair(batch)[0]
    pair.captured["teacher"] = stand_in
    assert torch.allclose(pair(batch)[0], expected, rtol=1e-3) and calls == [(2, 3, 64, 64)]
    pair.probe = True
    pair(batch)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["yolov8s.yaml", "yolo26s.yaml"])
def test_rounded_weights_give_the_same_maps_under_autocast_with_fewer_operators(name: str) -> None:
    teacher = for_inference(model(name).eval()).requires_grad_(False)
    one = ForwardPass(teacher, (4, 6, 9), frozen=True)
    found = []
    for rounded in (False, True):
        if rounded:
            round_weights(teacher, torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(tree_leaves(one(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))))
            count = count_operators(lambda: one(torch.rand(2, 3, 64, 64))).launched
        found[-1].append(torch.tensor(count))
    *plain, before = found[0]
    *rounded_maps, after = found[1]
    assert all(torch.equal(a, b) and a.dtype == torch.bfloat16 for a, b in zip(plain, rounded_maps, strict=True))
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in teacher.modules())
    assert before - after > convolutions
