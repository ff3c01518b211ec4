"""Weight selection: a student that starts from a part of its teacher's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from dfssd.distillation.channels import held_channels
from dfssd.distillation.selection import can_select, select, select_weights, write_selected
from tests import configured

NAMES = {0: "a", 1: "b"}


def network(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model: Any = DetectionModel(name, nc=2, verbose=False)
    model.names, model.args = NAMES, {}
    for module in model.modules():  # what a trained normalization has
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def test_entries_are_evenly_spaced_in_every_dimension() -> None:
    weights = torch.arange(24.0).view(4, 6)
    assert select(weights, torch.Size([2, 3])).tolist() == [[0, 2, 4], [12, 14, 16]]
    assert select(weights, torch.Size([3, 6])).tolist() == weights[[0, 1, 2]].tolist(), "floor of i * 4 / 3"
    assert torch.equal(select(weights, weights.shape), weights)


@pytest.mark.parametrize("shape", [(5, 6), (4, 6, 1), (4,)])
def test_no_part_of_a_larger_or_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no part of shape"):
        select(torch.zeros(4, 6), torch.Size(shape))


def repeated(small: Any, large: Any) -> None:
    """Give ``large`` every channel of ``small`` twice in a row, so that both compute the same function."""
    own = small.state_dict()
    state = large.state_dict()
    for name, wanted in state.items():
        value = own[name]
        for dimension, (a, b) in enumerate(zip(value.shape, wanted.shape)):
            if a != b:
                assert b == 2 * a
                value = value.repeat_interleave(2, dimension)
                value = value / 2 if dimension == 1 else value
        state[name] = value
    large.load_state_dict(state)


def test_terms_compare_the_channels_that_the_student_holds_with_those_that_they_were() -> None:
    """In a teacher that has each channel of its student twice, both maps of a pair are the same."""
    small, large = network("yolov8n.yaml", 1), network("yolov8s.yaml", 2)
    repeated(small, large)
    terms = {name: {"weight": 1.0, "schedule": "constant"} for name in ("cwd", "crd_cls")}
    pair = configured.pair(large, small, terms=terms, selected=True).eval()
    with torch.no_grad():
        own, theirs = (pair.passes[name](torch.rand(2, 3, 64, 64)).feats for name in ("student", "teacher"))
        for align, x, y in zip(pair.projector["cwd"].align, own, theirs, strict=True):
            held = held_channels(x.shape[1], y.shape[1])
            assert held.tolist() == list(range(0, y.shape[1], 2))
            assert (align(x)[:, held] - y[:, held]).norm() < 1e-2 * y[:, held].norm()
            rest = align.weight[held + 1]
            assert 0 < rest.abs().max() <= 0.1 * align.in_channels**-0.5, "what is not known yet starts small"
    for align in pair.projector["crd_cls"].align:
        assert torch.equal(
            align.weight[held_channels(*align.weight.shape[1::-1])].flatten(1), torch.eye(align.in_channels)
        )


@pytest.mark.parametrize("pair", [("yolov8n.yaml", "yolov8s.yaml")])
def test_selection_undoes_a_network_of_twice_the_width_that_computes_the_same(pair: tuple[str, str]) -> None:
    """So channels stay together through splits, concatenations and residual connections, and the outputs their size."""
    small, large = (network(name, seed) for seed, name in enumerate(pair))
    repeated(small, large)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = small(image)[1]
        assert all(torch.allclose(large(image)[1][key], expected[key], atol=1e-3) for key in ("boxes", "scores"))
    again = network(pair[0], seed=7)
    select_weights(large, again)
    for module in again.modules():  # the sums over half of the inputs are half as large; a normalization in training
        if isinstance(module, nn.BatchNorm2d):  # does not see that, its statistics of before do
            module.eps = 0.0
    for name, value in again.state_dict().items():
        halved = name.endswith("conv.weight") and value.shape[1] != large.state_dict()[name].shape[1]
        own = small.state_dict()[name]
        assert torch.allclose(value, own / 2 if halved else own, atol=1e-6), name


def test_a_student_that_learns_starts_with_the_function_of_such_a_teacher() -> None:
    small, large = network("yolov8n.yaml", 0), network("yolov8s.yaml", 1)
    repeated(small, large)
    again = network("yolov8n.yaml", 7)
    select_weights(large, again)
    image = torch.rand(2, 3, 64, 64)
    for model in (small, again):  # in training, normalizations measure their inputs
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-12
    with torch.no_grad():
        expected, found = small(image), again(image)
    assert torch.allclose(found["boxes"], expected["boxes"], atol=1e-2)
    assert torch.allclose(found["scores"], expected["scores"], atol=1e-2)


def test_attention_keeps_weights_of_its_own() -> None:
    teacher, student = network("yolo11s.yaml", 0), network("yolo11n.yaml", 1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert can_select(teacher, student)
    select_weights(teacher, student)
    for name, value in student.state_dict().items():
        theirs = select(teacher.state_dict()[name], value.shape)
        if ".attn." in name:
            assert torch.equal(value, before[name]), name
        elif value.is_floating_point() and theirs.shape == teacher.state_dict()[name].shape:
            assert torch.equal(value, theirs), name


@pytest.mark.parametrize(
    ("teacher", "student", "possible"),
    [
        ("yolov8s.yaml", "yolov8n.yaml", True),
        ("yolov8n.yaml", "yolov8s.yaml", False),
        ("yolov8m.yaml", "yolov8n.yaml", True),
        ("yolo11s.yaml", "yolov8n.yaml", False),
    ],
)
def test_every_weight_needs_a_counterpart(teacher: str, student: str, possible: bool) -> None:
    assert can_select(network(teacher), network(student)) is possible


def test_the_file_is_a_plain_detector_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    teacher = network("yolov8s.yaml")
    source = tmp_path / "teacher.pt"
    torch.save({"model": teacher.half(), "ema": None, "epoch": -1, "train_args": {}}, source)
    assert write_selected(source, "yolov8n.yaml", tmp_path / "a.pt", seed=3)
    assert write_selected(source, "yolov8n.yaml", tmp_path / "b.pt", seed=3)
    a, b = (load_checkpoint(str(tmp_path / name))[0] for name in ("a.pt", "b.pt"))
    assert a.names == NAMES and a.yaml["scale"] == "n"
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not write_selected(source, "yolov8m.yaml", tmp_path / "c.pt", seed=3)
    assert not (tmp_path / "c.pt").exists()
