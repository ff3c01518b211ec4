"""A detector that learns from images alone: which layers learn, what is random, and what a checkpoint holds."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from dfssd.distillation.forward import ForwardPass
from dfssd.pretraining.model import NETWORK, Body, PretrainingModel
from dfssd.pretraining.objectives import ForeignParts
from tests.tiny_detection import TINY


@pytest.fixture
def wrapped() -> PretrainingModel:
    torch.manual_seed(0)
    network = DetectionModel(TINY, nc=1, verbose=False)
    channels = [level[0].conv.in_channels for level in network.model[-1].cv2]
    return PretrainingModel(network, ForeignParts(channels, (8, 16, 32))).train()


def batch(seed: int = 0) -> dict[str, Tensor]:
    return {"img": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))}


def test_all_but_the_head_learns(wrapped: PretrainingModel) -> None:
    wrapped.seed(0)
    wrapped.probe = True
    losses, items = wrapped.loss(batch())
    assert losses.shape == (2,) and list(items) == ["where", "what"]
    assert losses.tolist() == pytest.approx([2 * value.item() for value in items.values()])
    losses.sum().backward()
    head = f"model.{len(wrapped.student_model.model) - 1}."
    for name, parameter in wrapped.student_model.named_parameters():
        assert (parameter.grad is None) == name.startswith(head), name
    assert all(p.grad is not None for p in wrapped.projector.parameters())
    assert len(wrapped.spreads) == 3 and all(0 < value <= 1.01 for value in wrapped.spreads)


@pytest.mark.parametrize("architecture", [TINY, "yolo11n.yaml", "yolo26n.yaml"])
def test_body_gives_what_the_head_would_get_and_leaves_the_network_as_it_is(architecture: str) -> None:
    network = DetectionModel(architecture, nc=1, verbose=False).train()
    images = batch()["img"]
    before = copy.deepcopy(network.state_dict())
    maps = Body(network)(images)
    network.load_state_dict(before)  # the running statistics
    expected = ForwardPass(network, network.model[-1].f)(images).feats
    assert len(maps) == 3 and all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    assert "forward" not in vars(network.model[-1]) and network(images).keys() & {"boxes", "one2many"}


def test_a_step_follows_from_its_numbers(wrapped: PretrainingModel) -> None:
    def losses(*numbers: int) -> list[float]:
        wrapped.seed(*numbers)
        return wrapped.loss(batch())[0].tolist()

    first = losses(0, 0, 1, 2)
    assert losses(0, 0, 1, 2) == first
    assert all(losses(*other) != first for other in ((1, 0, 1, 2), (0, 1, 1, 2), (0, 0, 2, 1), (0, 0, 1, 3)))


def test_stand_in_takes_the_place_of_the_pass(wrapped: PretrainingModel) -> None:
    seen = []

    def stand_in(images: Tensor) -> list[Tensor]:
        seen.append(images)
        return wrapped.passes[NETWORK](images)

    wrapped.seed(0)
    wrapped.captured = {NETWORK: stand_in}
    wrapped.loss(batch())
    assert len(seen) == 1 and not torch.equal(seen[0], batch()["img"])  # with foreign parts


def test_copies_and_checkpoints_hold_networks_only(wrapped: PretrainingModel) -> None:
    wrapped.seed(0)
    wrapped.captured = {NETWORK: lambda images: wrapped.passes[NETWORK](images)}
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert other.passes == other.captured == {} and other.generator is None and other.teacher_model is None
        own, theirs = wrapped.state_dict(), other.state_dict()
        assert own.keys() == theirs.keys() and all(torch.equal(own[name], theirs[name]) for name in own)
