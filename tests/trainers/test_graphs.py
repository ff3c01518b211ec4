"""Captured passes against eager ones, bit by bit, over several training steps with everything that lies between them.

On a CPU a tape of operators stands in for the graphs (:mod:`tests.tape`); where there is CUDA, the same tests use
graphs.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from dfssd.benchmark.operators import count_operators
from dfssd.segmentation.network import MFFMetal
from dfssd.trainers.graphs import CapturedPass, CaptureError, CudaRecorder, Pass, Recorder
from dfssd.trainers.optimizers import fused
from tests.tape import SilentRecorder, TapeRecorder
from tests.tiny_detection import TINY

SIZE = 64
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


def recorder(device: str) -> Recorder:
    return TapeRecorder() if device == "cpu" else CudaRecorder(torch.device("cuda", 0))


def detector(device: str = "cpu") -> Any:
    torch.manual_seed(0)
    model = DetectionModel(TINY, nc=3, verbose=False).train().to(device)
    for name, p in model.named_parameters():
        p.requires_grad_(".dfl" not in name)
    return model


def masks(device: str = "cpu") -> Any:
    torch.manual_seed(0)
    return MFFMetal(6, 3, (1, 1, 3)).train().to(device)


def images(step: int, device: str = "cpu", n: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(step)).to(device)


def loss_of(outputs: Any, step: int) -> Tensor:
    """A loss that reads each map differently in each step; one map of a dictionary may be left out."""
    leaves = [leaf for i, leaf in enumerate(tree_leaves(outputs)) if i == 0 or (i + step) % 4]
    return torch.stack([((i + 1) * leaf.float()).square().mean() for i, leaf in enumerate(leaves)]).sum()


class Training:
    """A few steps of Ultralytics' trainer, with a network that is captured or not."""

    def __init__(self, model: Any, forward: Callable[[Tensor], Any], accumulate: int = 1, amp: bool = False):
        self.model, self.forward, self.accumulate, self.amp = model, forward, accumulate, amp
        self.device = next(model.parameters()).device.type
        self.optimizer = fused(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2))
        self.ema = ModelEMA(model)
        self.losses: list[float] = []

    def autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.amp)

    def step(self, number: int, size: int = SIZE) -> None:
        with self.autocast():
            loss = loss_of(self.forward(images(number, self.device, size=size)), number)
        loss.backward()
        self.losses.append(float(loss.detach()))
        if (number + 1) % self.accumulate == 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=10.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.update(self.model)

    def state(self) -> dict[str, Tensor]:
        averages = {f"ema.{k}": v for k, v in self.ema.ema.state_dict().items()}
        return {**self.model.state_dict(), **averages}

    def capture(self) -> CapturedPass:
        with self.autocast():
            source = Pass(self.forward, self.model, learns=True)
            self.forward = captured = CapturedPass(source, images(99, self.device), recorder(self.device))
        return captured


def assert_equal(a: Training, b: Training) -> None:
    assert a.losses == b.losses
    for (name, x), y in zip(a.state().items(), b.state().values(), strict=True):
        assert torch.equal(x, y), f"{name} differs by {(x - y).abs().max()}"


def pair_of(build: Callable[[str], Any], device: str, **options: Any) -> tuple[Training, Training]:
    """Two equal trainings; the second may be captured."""
    first, second = build(device), build(device)
    return Training(first, first, **options), Training(second, second, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("build", [detector, masks])
@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_captured_training_is_the_eager_one(
    build: Callable[[str], Any], device: str, amp: bool, accumulate: int
) -> None:
    eager, other = pair_of(build, device, amp=amp, accumulate=accumulate)
    for number in range(7):
        if number == 2:
            captured = other.capture()
        eager.step(number)
        other.step(number)
    assert_equal(eager, other)
    assert captured._recorder.turn == 2 * 5, "the steps after the recording were replays, forth and back"
    assert len(set(eager.losses)) == 7


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("build", [detector, masks])
def test_what_happens_between_steps_is_as_in_an_eager_training(build: Callable[[str], Any], device: str) -> None:
    eager, other = pair_of(build, device, accumulate=2)
    step = Training.step
    between: list[Callable[[Training, int], None]] = [
        lambda t, n: step(t, n, size=96),  # another shape: the last batch, or multi_scale
        evaluate,
        measure_gradients,
        copy_and_pickle,
        load_older_weights,
        lambda t, n: None,
    ]
    for training in (eager, other):
        for number in range(2):
            training.step(number)
    captured = other.capture()
    for number, action in enumerate(between, 2):
        for training in (eager, other):
            training.step(2 * number)
            action(training, number)
            training.step(2 * number + 1)
    assert_equal(eager, other)
    assert captured._recorder.turn == 4 * len(between)


def evaluate(training: Training, number: int) -> None:
    """A validation of the network itself, in eval mode, with the shape of the recording."""
    training.model.eval()
    with torch.no_grad():
        outputs = training.forward(images(number, training.device))
    training.losses.append(float(sum(leaf.float().sum() for leaf in tree_leaves(outputs))))
    training.model.train()


def measure_gradients(training: Training, number: int) -> None:
    """A step that measures gradients runs eagerly, as in the pair."""
    loss = loss_of(training.model(images(number, training.device)), number)
    parameters = [p for p in training.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    training.losses.append(float(torch.stack([g.norm() for g in found if g is not None]).norm()))
    loss.backward()


def copy_and_pickle(training: Training, number: int) -> None:
    """As for a checkpoint, and for the new moving average after a loss that was not finite."""
    pickle.dumps(training.model)
    updates = training.ema.updates
    training.ema = ModelEMA(copy.deepcopy(training.model))
    training.ema.updates = updates


def load_older_weights(training: Training, number: int) -> None:
    """As after a loss that was not finite: weights and optimizer go back, in place."""
    training.model.load_state_dict({k: v.clone() for k, v in training.ema.ema.state_dict().items()})
    training.optimizer.load_state_dict(copy.deepcopy(training.optimizer.state_dict()))
    training.optimizer.zero_grad()


@pytest.mark.parametrize("device", DEVICES)
def test_recording_leaves_no_trace(device: str) -> None:
    training = Training(detector(device), None)
    training.forward = training.model
    training.accumulate = 9
    training.step(0)
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in training.model.parameters()]
    random = torch.random.get_rng_state()
    training.capture()
    assert all(torch.equal(v, before[k]) for k, v in training.model.state_dict().items())
    now = [p.grad for p in training.model.parameters()]
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(now, gradients, strict=True))
    assert torch.equal(random, torch.random.get_rng_state()) and training.model.training


@pytest.mark.parametrize("device", DEVICES)
def test_frozen_statistics_and_layers_stay_as_they_are(device: str) -> None:
    def build(device: str) -> Any:
        model = detector(device)
        for p in model.model[0].parameters():
            p.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return model

    eager, other = pair_of(build, device)
    before = {k: v.clone() for k, v in other.model.state_dict().items()}
    other.capture()
    for number in range(3):
        eager.step(number)
        other.step(number)
    assert_equal(eager, other)
    kept = {k for k, v in other.model.state_dict().items() if torch.equal(v, before[k])}
    assert kept > {k for k in before if "running" in k or "tracked" in k or k.startswith("model.0.conv")}
    assert len(kept) < len(before), "nothing was learned"


@pytest.mark.parametrize("device", DEVICES)
def test_teacher_and_student_share_memory_and_a_following_teacher_is_followed(device: str) -> None:
    def train(record: bool) -> tuple[list[float], dict[str, Tensor]]:
        student = Training(detector(device), None)
        teacher = detector(device).eval().requires_grad_(False)

        def inference(x: Tensor) -> Any:
            with torch.no_grad():
                return teacher(x)[1]

        run: dict[str, Any] = {"teacher": inference, "student": student.model}
        for number in range(6):
            if record and number == 2:
                one, image = recorder(device), images(99, device)
                run["teacher"] = CapturedPass(Pass(inference, teacher, learns=False), image, one)
                run["student"] = CapturedPass(Pass(student.model, student.model, learns=True), image, one)
            if number == 3:  # anchors of this size replace those in the head
                with torch.no_grad():
                    teacher(images(0, device, size=96))
            x = images(number, device)
            theirs, own = run["teacher"](x), run["student"](x)
            student.losses.append(float(sum(t.float().abs().sum() for t in tree_leaves(theirs))))
            loss = torch.stack([(own[k] - theirs[k]).square().mean() for k in ("boxes", "scores")]).sum()
            loss.backward()
            student.optimizer.step()
            student.optimizer.zero_grad()
            with torch.no_grad():  # the mean teacher follows in place
                for a, b in zip(teacher.state_dict().values(), student.model.state_dict().values(), strict=True):
                    a.copy_((a + b) / 2)
        return student.losses, {**student.model.state_dict()}

    (losses, state), (losses_captured, state_captured) = train(False), train(True)
    assert losses == losses_captured and len(set(losses)) == 6
    assert all(torch.equal(v, state_captured[k]) for k, v in state.items())


@pytest.mark.parametrize("device", DEVICES)
def test_backward_pass_after_the_memory_was_used_again_is_an_error(device: str) -> None:
    training = Training(detector(device), None)
    training.forward = training.model
    captured = training.capture()
    first = loss_of(captured(images(0, device)), 0)
    second = loss_of(captured(images(1, device)), 1)
    with pytest.raises(RuntimeError, match=r"overwritten|inplace"):
        first.backward()
    second.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="overwritten"):
        second.backward()


def test_outputs_are_overwritten_by_the_next_pass() -> None:
    """What the tape is for: a mistake that a graph would punish shows on a CPU, too."""
    training = Training(detector(), None)
    training.forward = training.model
    captured = training.capture()
    first = captured(images(0))["boxes"].detach()
    kept = first.clone()
    captured(images(1))
    assert not torch.equal(first, kept)


def test_recording_uses_the_memory_of_the_parameters_but_not_their_place_in_autograd() -> None:
    """The graph of the last loss is still there, and holds each parameter on the stream of that loss."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    own = {id(p): p.data_ptr() for p in model.parameters()}
    seen: list[dict[int, int]] = []

    def run(x: Tensor) -> Tensor:
        seen.append({id(p): p.data_ptr() for p in model.parameters()})
        out: Tensor = model(x)
        return out

    captured = CapturedPass(Pass(run, model, learns=True), images(0), TapeRecorder())
    assert seen and all(not set(ids) & set(own) and set(ids.values()) == set(own.values()) for ids in seen)
    assert {id(p): p.data_ptr() for p in model.parameters()} == own
    captured(images(0)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_network_that_draws_random_numbers_is_not_captured() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.1))
    with pytest.raises(CaptureError, match="random"):
        CapturedPass(Pass(model, model, learns=True), images(0), TapeRecorder())
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.0))
    CapturedPass(Pass(model, model, learns=True), images(0), TapeRecorder())


def test_replay_dispatches_a_fraction_of_the_operators() -> None:
    model = detector()
    captured = CapturedPass(Pass(model, model, learns=True), images(0), SilentRecorder())

    def step(forward: Callable[[Tensor], Any]) -> None:
        loss_of(forward(images(0)), 0).backward()

    step(model)
    alone = count_operators(lambda: step(model)).launched
    replayed = count_operators(lambda: step(captured)).launched
    assert replayed < alone / 5, (replayed, alone)
