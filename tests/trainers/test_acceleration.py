"""How the networks of a training run: what is measured and kept, and that every failure ends in an eager training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_structure
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from dfssd.distillation.forward import ForwardPass
from dfssd.trainers.acceleration import SETTLE, TIMED, Acceleration, CompiledPass, predicted_by
from dfssd.trainers.graphs import CapturedPass, Pass
from tests.tape import TapeRecorder
from tests.tiny_detection import TINY

CPU = torch.device("cpu")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What Ultralytics' logger says."""
    found: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Listening()
    LOGGER.addHandler(handler)
    yield found
    LOGGER.removeHandler(handler)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU()).train()


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Stopwatch:
    """A clock that the step itself advances: 40 ms eagerly, another time with a stand-in."""

    def __init__(self, captured: float):
        self.seconds, self.captured = 0.0, captured

    def __call__(self) -> float:
        return self.seconds


def run(acceleration: Acceleration, watch: Stopwatch, model: nn.Module, steps: int, **options: Any) -> list[bool]:
    """Steps of a training; returns in which of them the network did not run itself."""
    replaced = []
    for _ in range(steps):
        acceleration.begin()
        passes = {"network": Pass(model, model, learns=True)} if options.get("eligible", True) else {}
        stand_ins = acceleration.stand_ins(options.get("images", IMAGES), passes)
        forward: Callable[[Tensor], Any] = stand_ins.get("network", model)
        forward(options.get("images", IMAGES)).square().mean().backward()
        watch.seconds += watch.captured if stand_ins else 0.040
        replaced.append(bool(stand_ins))
        acceleration.end()
    return replaced


def build(wish: str, watch: Stopwatch | None = None, **options: Any) -> Acceleration:
    options.setdefault("recorder", lambda device: TapeRecorder())
    return Acceleration(wish, options.pop("device", CPU), now=watch or Stopwatch(0.0), **options)


@pytest.mark.parametrize(("seconds", "kept"), [(0.010, True), (0.050, False), (0.040, False)])
def test_graphs_are_kept_only_if_the_first_batches_are_faster(seconds: float, kept: bool, lines: list[str]) -> None:
    watch = Stopwatch(seconds)
    acceleration, model = build("auto", watch), network()
    trial = 2 * (SETTLE + TIMED)
    replaced = run(acceleration, watch, model, trial - 1)
    assert not acceleration.settled
    replaced += run(acceleration, watch, model, 6)
    assert acceleration.settled
    assert replaced == [False] * (trial // 2) + [True] * (trial // 2) + [kept] * 5
    assert acceleration.used == ("graph" if kept else "eager") and bool(acceleration._stand_ins) == kept
    assert acceleration.milliseconds == {"eager": 40.0, "graph": seconds * 1000}
    assert f"{seconds * 1000:.1f} ms" in acceleration.describe() and "40.0 ms" in acceleration.describe()
    assert len(lines) == 1 and ("graphs" in lines[0]) == kept


def test_steps_that_measure_gradients_are_neither_captured_nor_timed() -> None:
    watch = Stopwatch(0.010)
    acceleration, model = build("auto", watch), network()
    run(acceleration, watch, model, SETTLE + TIMED)
    assert run(acceleration, watch, model, 3, eligible=False) == [False] * 3
    assert run(acceleration, watch, model, 1) == [True]
    assert run(acceleration, watch, model, 40, eligible=False) == [False] * 40
    run(acceleration, watch, model, SETTLE + TIMED)
    assert acceleration.milliseconds == {"eager": 40.0, "graph": 10.0}


def test_graph_is_captured_with_the_first_batch_where_it_is_asked_for(lines: list[str]) -> None:
    acceleration = build("graph")
    assert run(acceleration, Stopwatch(0.050), network(), 3) == [True] * 3
    assert acceleration.describe() == "graph: as configured" and len(lines) == 1


@pytest.mark.parametrize("wish", ["auto", "graph", "inductor"])
def test_obstacle_leaves_the_networks_eager_in_one_line(wish: str, lines: list[str]) -> None:
    acceleration = build(wish, obstacle="several devices train together")
    assert run(acceleration, Stopwatch(0.0), network(), 30) == [False] * 30
    assert len(lines) == 1 and "several devices train together" in lines[0]
    assert acceleration.describe() == "eager: several devices train together"


def test_without_cuda_there_are_no_graphs_and_only_an_explicit_wish_is_answered(lines: list[str]) -> None:
    for wish, told in (("eager", 0), ("auto", 0), ("graph", 1)):
        lines.clear()
        acceleration = build(wish, recorder=None)
        assert run(acceleration, Stopwatch(0.0), network(), 30) == [False] * 30
        assert len(lines) == told, wish
        assert acceleration.used == "eager"


class Failing(TapeRecorder):
    """Fails in the middle of a recording, as CUDA does at an operation that a graph cannot hold."""

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
        super().record(function)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more lines")


@pytest.mark.parametrize("wish", ["auto", "graph"])
def test_failed_recording_ends_in_the_eager_training_of_before(wish: str, lines: list[str]) -> None:
    watch, model, alone = Stopwatch(0.0), network(), network()
    acceleration = build(wish, watch, recorder=lambda device: Failing())
    steps = 2 * (SETTLE + TIMED) + 3
    assert run(acceleration, watch, model, steps) == [False] * steps
    run(build("eager"), Stopwatch(0.0), alone, steps)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), alone.state_dict().values(), strict=True))
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), alone.parameters(), strict=True))
    assert len(lines) == 1 and "not permitted when stream is capturing" in lines[0] and "more lines" not in lines[0]
    assert acceleration.used == "eager" and "failed" in acceleration.reason


def test_after_a_smaller_batch_the_graphs_are_made_anew() -> None:
    acceleration, model = build("graph"), network()
    run(acceleration, Stopwatch(0.0), model, 2)
    before = acceleration.stand_ins(IMAGES, {"network": Pass(model, model, learns=True)})["network"]
    handed = acceleration.stand_ins(IMAGES, {"network": Pass(model, model, learns=True)})
    acceleration.release()
    assert not handed, "nobody holds the memory of the graphs"
    after = acceleration.stand_ins(IMAGES[:1], {"network": Pass(model, model, learns=True)})["network"]
    assert after is not before and isinstance(after, CapturedPass)
    replays = after._recorder.turn
    after(IMAGES[:1]).sum().backward()
    assert after._recorder.turn == replays + 2
    after(IMAGES).sum().backward()
    assert after._recorder.turn == replays + 2, "a batch of another shape is not replayed"


def test_predictions_of_a_stand_in_reach_the_loss_once_and_leave_no_hook() -> None:
    class Model(nn.Module):
        def forward(self, batch: Any, predictions: Any = None) -> Any:
            return "its own" if predictions is None else predictions

    model = Model()
    predicted_by(model, lambda images: images + 1)
    assert torch.equal(model({"img": IMAGES}), IMAGES + 1)
    assert model({"img": IMAGES}) == "its own" and not model._forward_pre_hooks
    predicted_by(model, lambda images: images + 1).remove()
    assert model({"img": IMAGES}) == "its own" and not model._forward_pre_hooks


@pytest.mark.train
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_compiled_pass_is_the_eager_one_up_to_rounding(backend: str) -> None:
    model, alone = network(), network()
    compiled = CompiledPass(Pass(model, model, learns=True), IMAGES, backend)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), alone.state_dict().values(), strict=True))
    for number in range(3):
        images = IMAGES + number
        out, own = compiled(images), alone(images)
        assert torch.allclose(out, own, rtol=1e-5, atol=1e-5)
        out.square().mean().backward()
        own.square().mean().backward()
    for a, b in zip(model.parameters(), alone.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6) and a.grad.any()
    assert torch.allclose(model[1].running_mean, alone[1].running_mean, rtol=1e-5)
    assert torch.equal(compiled(IMAGES[:1]), model(IMAGES[:1])), "another shape runs eagerly"


@pytest.mark.train
def test_pass_of_a_pair_is_compiled_with_all_that_is_read_of_it() -> None:
    """Its hooks, set for the duration of a pass, must not be lost on the way."""
    passes = []
    for _ in range(2):
        torch.manual_seed(0)
        model = DetectionModel(TINY, nc=3, verbose=False).train()
        passes.append(ForwardPass(model, (15, 18, 21), (("cls", 2), ("box", 0))))
    images = torch.rand(2, 3, 64, 64)
    compiled = CompiledPass(Pass(passes[0], passes[0].network, learns=True), images, "aot_eager")
    found, wanted = compiled(images), passes[1](images)
    assert tree_structure(found) == tree_structure(wanted)
    for out in (found, wanted):
        torch.stack([leaf.square().mean() for leaf in tree_leaves(out)]).sum().backward()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(tree_leaves(found), tree_leaves(wanted), strict=True))
    for a, b in zip(passes[0].parameters(), passes[1].parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5)


def test_missing_compiler_ends_in_an_eager_training(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **options: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", missing)
    acceleration = build("inductor")
    assert run(acceleration, Stopwatch(0.0), network(), 3) == [False] * 3
    assert len(lines) == 1 and "Failed to find C compiler" in lines[0]
