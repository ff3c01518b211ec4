"""Fused optimizers: the same steps as the others, fewer operators, and resumption in both directions."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.optim import MuSGD

from dfssd.benchmark.operators import count_operators
from dfssd.trainers.optimizers import fused


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for _ in range(4)))


def build(model: nn.Module, name: str) -> Any:
    """The optimizer as Ultralytics builds it, with its three groups."""
    return BaseTrainer.build_optimizer(SimpleNamespace(), model, name, lr=0.01, momentum=0.9, decay=0.1)


def train(model: nn.Module, optimizer: Any, first: int, last: int) -> None:
    """Steps with gradients and learning rates that follow from the number of the step."""
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimizer.step()
        optimizer.zero_grad()


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_fused_steps_are_those_of_the_plain_optimizer_in_a_fraction_of_the_operators(name: str) -> None:
    plain, quick = network(), network()
    slow, fast = build(plain, name), fused(build(quick, name))
    assert type(fast) is type(slow) and fast is not slow
    assert all(g["fused"] for g in fast.param_groups) and not any(g["fused"] for g in slow.param_groups)
    kept = [{k: v for k, v in g.items() if k not in {"params", "fused"}} for g in fast.param_groups]
    assert kept == [{k: v for k, v in g.items() if k not in {"params", "fused"}} for g in slow.param_groups]
    for model, optimizer in ((plain, slow), (quick, fast)):
        train(model, optimizer, 0, 5)
    assert torch.allclose(weights(plain), weights(quick), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(weights(plain), weights(network()), rtol=1e-2), "nothing was learned"
    counts = []
    for model, optimizer in ((plain, slow), (quick, fast)):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        counts.append(count_operators(optimizer.step).launched)
    parameters = sum(1 for _ in plain.parameters())
    assert counts[1] <= 3 * len(fast.param_groups) and counts[0] >= 2 * parameters, counts


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_training_goes_on_from_either_kind(before: bool, after: bool) -> None:
    """As Ultralytics resumes: the device of now decides on the kernel, not the checkpoint."""
    whole = network()
    train(whole, build(whole, "AdamW"), 0, 6)
    model = network()
    optimizer = fused(build(model, "AdamW")) if before else build(model, "AdamW")
    train(model, optimizer, 0, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer = fused(build(model, "AdamW")) if after else build(model, "AdamW")
    for state, group in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        state["fused"] = group.get("fused")
    optimizer.load_state_dict(saved)
    assert all(bool(g["fused"]) == after for g in optimizer.param_groups)
    train(model, optimizer, 3, 6)
    assert torch.allclose(weights(model), weights(whole), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_moments_saved_in_another_memory_layout_keep_their_places(name: str) -> None:
    whole = network()
    train(whole, build(whole, name), 0, 6)
    model = network()
    optimizer = fused(build(model, name))
    train(model, optimizer, 0, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        for key, value in state.items():
            if value.ndim == 4:
                state[key] = value.to(memory_format=torch.channels_last)
    resumed = fused(build(model, name))
    resumed.load_state_dict(saved)
    kept = [v.stride() == p.stride() for p, s in resumed.state.items() for v in s.values() if v.ndim == 4]
    assert kept and all(kept)
    train(model, resumed, 3, 6)
    assert torch.allclose(weights(model), weights(whole), rtol=1e-5, atol=1e-7)


def test_optimizer_without_fused_kernels_stays() -> None:
    model = network()
    optimizers = [build(model, "RAdam"), build(model, "RMSprop"), MuSGD(model.parameters())]
    assert all(fused(optimizer) is optimizer for optimizer in optimizers)
    elsewhere = SGD([nn.Parameter(torch.zeros(2, device="meta"))], lr=0.1)
    assert fused(elsewhere) is elsewhere


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_mixed_precision_learns_of_the_kernels_that_skip_overflows(kind: Any) -> None:
    assert getattr(fused(kind(network().parameters())), "_step_supports_amp_scaling", False)
    assert not hasattr(kind(network().parameters()), "_step_supports_amp_scaling")
