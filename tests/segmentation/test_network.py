"""MFF-Metal: parameters counted, the network against its definition written out, exports that compute the same."""

from __future__ import annotations

import io

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.segmentation.network import Bottleneck, DecoderUnit, Fusion, MFFMetal, Stage, half_size, quarters


def network(width: int = 6, nc: int = 4, seed: int = 0) -> MFFMetal:
    """In evaluation, with statistics and scales as if trained: logits of a fresh network are almost 0."""
    torch.manual_seed(seed)
    net = MFFMetal(width, nc).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                tensor.uniform_(low, high)
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(0.0, 0.5)
    return net


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("width", "expected"), [(30, 981_580), (60, 3_862_990), (120, 15_326_350), (180, 34_390_390)])
def test_parameters_are_those_of_the_published_network(width: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(MFFMetal(width)) == expected


def test_parameters_of_each_part() -> None:
    with torch.device("meta"):
        net = MFFMetal(30)
    assert count(net.stem) == 17_280
    assert [count(stage.down) for stage in net.stages] == [3_780, 7_470, 11_160]
    assert [count(stage.blocks) for stage in net.stages] == [53_640, 119_610, 635_040]
    assert [count(stage.fusion) for stage in net.stages] == [11_980, 34_030, 75_430]
    assert count(net.decoder) == 12_160


def test_dilations_of_the_bottlenecks() -> None:
    def dilations(net: MFFMetal) -> list[list[tuple[int, ...]]]:
        return [[tuple(b[0].dilation[0] for b in block.branches) for block in stage.blocks] for stage in net.stages]

    near, middle, far = (1, 2, 3), (1, 4, 6), (1, 8, 12)
    assert dilations(MFFMetal(6)) == [[near] * 2, [near] * 2, [near, near, middle, middle, far, far]]
    assert dilations(MFFMetal(6, blocks=[1, 3, 3])) == [[near], [near] * 3, [near, middle, far]]


def test_every_normalization_has_the_published_epsilon() -> None:
    assert {m.eps for m in MFFMetal(6).modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


# the definition, written out on the weights of a network


def pooled(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=True)
    return x


def twice(x: Tensor, factor: int = 2) -> Tensor:
    size = [factor * side for side in x.shape[2:]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def slow_down(module: nn.Module, x: Tensor) -> Tensor:
    new = F.conv2d(x, module.conv.weight, stride=2)
    return module.out(torch.cat([new, F.max_pool2d(x, 2, 2)], 1))


def slow_bottleneck(block: Bottleneck, x: Tensor) -> Tensor:
    inside = block.reduce(x)
    third = inside.shape[1] // 3
    branches = []
    for k, branch in enumerate(block.branches):
        dilation = branch[0].dilation[0]
        part = inside[:, k * third : (k + 1) * third]
        part = F.conv2d(part, branch[0].weight, padding=dilation, dilation=dilation, groups=third)
        branches.append(branch[1](part))
    return block.out(x + block.expand(torch.cat(branches, 1)))


def slow_fusion(fusion: Fusion, main: Tensor, image: Tensor, skips: list[Tensor]) -> Tensor:
    x = torch.cat(skips, 1)
    first, act, second, _ = fusion.attend.weigh
    u = F.conv2d(F.adaptive_avg_pool2d(x, 2), fusion.attend.gather.weight, groups=x.shape[1])[:, :, 0, 0]
    u = u + F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]
    hidden = u @ first.weight.T
    hidden = torch.where(hidden > 0, hidden, act.weight * hidden)
    weight = 1 / (1 + (-(hidden @ second.weight.T)).exp())
    return fusion.mix(torch.cat([main, image, weight[:, :, None, None] * x], 1))


def slow_unit(unit: DecoderUnit, low: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.cat([F.conv2d(low, unit.low.weight), twice(F.conv2d(deep, unit.deep.weight))], 1)
    vote = F.conv2d(both, unit.vote.weight).flatten(1).mean(1)
    depthwise, act, pointwise, _ = unit.attend
    attention = F.conv2d(act(F.conv2d(both, depthwise.weight, padding=1, groups=40)), pointwise.weight).sigmoid()
    depthwise, act, pointwise = unit.classify
    prediction = act(F.conv2d(deep, depthwise.weight, padding=1, groups=deep.shape[1]))
    return twice(F.conv2d(prediction, pointwise.weight)) * attention, vote


def slow_parts(net: MFFMetal, x: Tensor) -> tuple[Tensor, ...]:
    one, two, three = net.stages

    def blocks(stage: Stage, x: Tensor) -> Tensor:
        for block in stage.blocks:
            x = slow_bottleneck(block, x)
        return x

    e0 = net.stem(x)
    d1 = slow_down(one.down, e0)
    f1 = slow_fusion(one.fusion, blocks(one, d1), pooled(x, 1), [d1, pooled(e0, 1)])
    d2 = slow_down(two.down, f1)
    f2 = slow_fusion(two.fusion, blocks(two, d2), pooled(x, 2), [d2, pooled(f1, 1), pooled(e0, 2)])
    d3 = slow_down(three.down, f2)
    skips = [d3, pooled(f2, 1), pooled(f1, 2), pooled(e0, 3)]
    f3 = slow_fusion(three.fusion, blocks(three, d3), pooled(x, 3), skips)
    o48, q48 = slow_unit(net.decoder[0], f2, f3)
    o24, q24 = slow_unit(net.decoder[1], f1, f2)
    o48, o24 = twice(o48, 4), twice(o24, 2)
    total = q48.exp() + q24.exp()
    p48, p24 = q48.exp() / total, q24.exp() / total
    logits = p48[:, None, None, None] * o48 + p24[:, None, None, None] * o24
    return logits, o48, o24, torch.stack([p48, p24], 1)


@pytest.mark.parametrize("size", [(64, 48), (40, 8)])  # even and odd sides, down to a single place, at 1/8
def test_network_is_its_definition_written_out(size: tuple[int, int]) -> None:
    net = network().double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        found, expected = net.parts(x), slow_parts(net, x)
        assert torch.equal(found.logits, net(x))
    assert found.logits.std() > 0.1, "a comparison of zeros would say nothing"
    for one, other in zip(found, expected):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_stem_sees_eleven_pixels_without_losing_resolution() -> None:
    stem = network().stem.double()
    x = torch.zeros(1, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        still = stem(x)
        x[0, :, 12, 12] = 1.0
        rows = (stem(x) - still).abs().amax((0, 1, 3)).nonzero().flatten()
    # radii 1, 2 and 2 of kernels whose dilated ones touch every second pixel
    assert still.shape == (1, 6, 24, 24) and rows.tolist() == list(range(7, 18))


@pytest.mark.parametrize("size", [(25, 25), (12, 7), (2, 3), (1, 1)])
def test_quarters_are_adaptive_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    assert torch.allclose(quarters(x), F.adaptive_avg_pool2d(x, 2))


def test_places_outside_count_as_zero_in_the_image_at_half_size() -> None:
    found = half_size(torch.ones(1, 1, 4, 4))[0, 0] * 9
    assert torch.allclose(found, torch.tensor([[4.0, 6.0], [6.0, 9.0]]))


# what it gives and how it behaves


@pytest.mark.parametrize(("size", "nc"), [((192, 192), 4), ((200, 200), 4), ((224, 224), 2), ((200, 96), 7)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int], nc: int) -> None:
    with torch.no_grad():
        assert network(nc=nc)(torch.rand(1, 3, *size)).shape == (1, nc, *size)


def test_gate_is_chosen_for_each_image_and_sums_to_1() -> None:
    net = network()
    x = torch.randn(3, 3, 32, 32) * torch.tensor([0.1, 1.0, 3.0])[:, None, None, None]
    with torch.no_grad():
        parts = net.parts(x)
        alone = net.parts(x[1:2])
    assert parts.gate.shape == (3, 2) and (parts.gate > 0).all()
    assert torch.allclose(parts.gate.sum(1), torch.ones(3))
    assert parts.gate[:, 0].unique().numel() == 3
    for one, other in zip(alone, parts):
        assert torch.allclose(one, other[1:2], atol=1e-5)


def test_every_parameter_is_trained() -> None:
    net = network(nc=2).train()
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_half_precision_and_channels_last() -> None:
    net = network()
    x = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        expected = net(x)
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert torch.allclose(last, expected, atol=1e-4)
    net.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(x)
    logits.float().square().mean().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = net.eval()(x)
    assert (rough - net(x)).abs().mean() < 0.05 * expected.std()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_computes_the_same() -> None:
    net = network()
    x, other = torch.randn(1, 3, 40, 40), torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        traced, scripted = torch.jit.trace(net, x), torch.jit.script(net)
        assert torch.allclose(traced(x), net(x), atol=1e-5)
        assert torch.allclose(scripted(other), net(other), atol=1e-5)
        with pytest.raises(torch.jit.Error, match="multiples of 8"):
            scripted(torch.randn(1, 3, 40, 44))


@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export")
@pytest.mark.parametrize("size", [40, 64])  # odd and even sides at 1/8
def test_onnx_computes_the_same(size: int) -> None:
    net, file = network(), io.BytesIO()
    x = torch.randn(2, 3, size, size)
    torch.onnx.export(net, x, file, opset_version=17, dynamo=False, input_names=["images"])
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = net(x).numpy()
    assert expected.std() > 0.1
    assert np.abs(session.run(None, {"images": x.numpy()})[0] - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 32}, "width=32 must be a multiple of 6"),
        ({"width": 0}, "width=0 must be a whole number >= 6"),
        ({"width": 30.0}, "width=30.0 must be a whole number >= 6"),
        ({"nc": 1}, "nc=1 must be a whole number >= 2"),
        ({"nc": 256}, "nc=256 must be at most 255"),
        ({"blocks": (2, 6)}, r"blocks=\(2, 6\) must be three numbers"),
        ({"blocks": (2, 0, 6)}, "number of blocks=0 must be a whole number >= 1"),
        ({"blocks": (2, 2, 5)}, r"blocks=\(2, 2, 5\) must end with a multiple of 3"),
    ],
)
def test_wrong_arguments_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MFFMetal(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(100, 64), (64, 100)])
def test_wrong_sides_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"must be multiples of 8, not {size[0]} and {size[1]}"):
        network()(torch.zeros(1, 3, *size))
