"""How the networks of a training run: eagerly, as captured graphs, or compiled. What is faster is measured.

On CUDA a small network waits for launches, which graphs save. On a CPU there are no launches to save, and compiling
YOLOv8n takes minutes without making it faster (EXPERIMENTS.md), so that ``auto`` leaves it eager.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.trainers.graphs import CapturedPass, CudaRecorder, Pass, Recorder, unchanged

AUTO, GRAPH, INDUCTOR, EAGER = "auto", "graph", "inductor", "eager"

NETWORK = "network"
"""The pass of a model that is trained alone."""

SETTLE, TIMED = 3, 8
"""Steps that are not timed, after the start and after a change, and steps that are."""

StandIn = Callable[[Tensor], Any]


class Acceleration:
    """Chooses how the forward passes of one training run, and lets graphs or compiled code stand in for them.

    Attributes:
        wish: ``auto``, ``graph``, ``inductor`` or ``eager``.
        used: How the passes run at present: ``graph``, ``inductor`` or ``eager``.
        reason: Why it is so.
        milliseconds: Way -> median time of a step, where both were measured.
    """

    def __init__(
        self,
        wish: str,
        device: torch.device,
        *,
        obstacle: str = "",
        recorder: Callable[[torch.device], Recorder] | None = None,
        now: Callable[[], float] = time.perf_counter,
    ):
        """Decide what can be decided before the first step.

        Args:
            wish: What the configuration asks for.
            device: Where the training runs.
            obstacle: Why its passes have to run eagerly; empty if nothing speaks against it.
            recorder: Makes the recorder of the graphs; None: that of CUDA.
            now: Clock [s].
        """
        self.wish, self.used, self.reason = wish, EAGER, ""
        self.milliseconds: dict[str, float] = {}
        self._device, self._now = device, now
        self._recorder = recorder or CudaRecorder
        self._stand_ins: dict[str, StandIn] = {}
        self._began: float | None = None
        self._seen = 0  # steps since the last change
        self._times: dict[str, list[float]] = {EAGER: [], GRAPH: []}
        self._target = self._possible(obstacle, graphs=recorder is not None or device.type == "cuda")
        self._measures = wish == AUTO and self._target == GRAPH

    def _possible(self, obstacle: str, *, graphs: bool) -> str:
        """The way that is aimed at; tells in one line what of an explicit wish is impossible."""
        if self.wish == EAGER:
            self.reason = "as configured"
            return EAGER
        if self.wish == AUTO and not graphs:
            self.reason = f"no graphs on {self._device.type}"
            return EAGER
        if self.wish == GRAPH and not graphs:
            obstacle = obstacle or f"graphs need CUDA, not {self._device.type}"
        if obstacle:
            self.reason = obstacle
            LOGGER.info(f"compile={self.wish}: the networks run eagerly: {obstacle}")
            return EAGER
        return INDUCTOR if self.wish == INDUCTOR else GRAPH

    def begin(self) -> None:
        """A step begins: called with the batch at hand."""
        self._began = None
        if self._measures:
            self._wait()
            self._began = self._now()

    def stand_ins(self, images: Tensor, passes: Mapping[str, Pass]) -> Mapping[str, StandIn]:
        """What runs in this step instead of the passes; empty: they run themselves.

        Args:
            images: The batch, (N, 3, H, W).
            passes: The passes by name, in the order in which they run. None in a step that must run eagerly, and is not
                timed.
        """
        if not passes or self._target == EAGER:
            self._began = None
            return {}
        if not self._stand_ins and (not self._measures or len(self._times[EAGER]) == TIMED):
            self._change(images, passes)
        return self._stand_ins

    def end(self) -> None:
        """A step is done."""
        if self._began is None or not self._measures:
            return
        self._wait()
        self._seen += 1
        if self._seen > SETTLE:
            self._times[self.used].append((self._now() - self._began) * 1000)
        if len(self._times[GRAPH]) == TIMED:
            self._judge()

    def release(self) -> None:
        """Forget graphs and compiled code, whose batches had another shape; they are made anew for the next one."""
        self._stand_ins.clear()  # also where they were handed to, else their memory would not be free
        self._seen = 0
        if self._target != EAGER:
            self.used = EAGER
        for times in self._times.values():
            if self._measures:
                times.clear()

    @property
    def settled(self) -> bool:
        """Whether the way of the passes does not change any more."""
        return self.used == self._target and not self._measures

    def describe(self) -> str:
        """What was done and why, in one line, for the record of the training."""
        return f"{self.used}: {self.reason or 'not decided yet'}"

    def _change(self, images: Tensor, passes: Mapping[str, Pass]) -> None:
        """Capture or compile the passes; eager from now on if that fails."""
        started = self._now()
        try:
            if self._target == GRAPH:
                recorder = self._recorder(self._device)
                self._stand_ins = {name: CapturedPass(one, images, recorder) for name, one in passes.items()}
            else:
                self._stand_ins = {name: CompiledPass(one, images) for name, one in passes.items()}
        except Exception as e:  # whatever fails in a library's beta feature, the eager pass is still there
            self._give_up(f"{self._target} failed: {(str(e).strip() or type(e).__name__).splitlines()[0]}")
            return
        self.used, self._seen = self._target, 0
        if not self._measures:
            self.reason = self.reason or "as configured"
            LOGGER.info(f"compile={self.wish}: {self.used} after {self._now() - started:.1f} s")

    def _judge(self) -> None:
        """Keep the faster way."""
        self.milliseconds = {way: round(statistics.median(times), 2) for way, times in self._times.items()}
        self._measures = False
        line = ", ".join(f"{way} {ms:.1f} ms" for way, ms in self.milliseconds.items())
        self.reason = f"measured, a step takes: {line}"
        if self.milliseconds[GRAPH] < self.milliseconds[EAGER]:
            LOGGER.info(f"compile={self.wish}: graphs, {self.reason}")
        else:
            self._give_up(self.reason)

    def _give_up(self, reason: str) -> None:
        """Run eagerly for the rest of the training."""
        self._stand_ins.clear()
        self._target, self.used, self._measures = EAGER, EAGER, False
        self.reason = reason
        LOGGER.info(f"compile={self.wish}: the networks run eagerly: {reason}")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class AcceleratedSteps:
    """The part of a trainer that lets graphs or compiled code stand in for the passes of its steps."""

    args: Any
    device: torch.device
    model: Any
    world_size: int

    def prepare_acceleration(self, wish: str) -> None:
        """Set the acceleration; called once, when the device is known."""
        self.acceleration = Acceleration(wish, self.device, obstacle=self.obstacle())
        self.stand_ins: Mapping[str, StandIn] = {}
        self._prediction: RemovableHandle | None = None
        trainer: Any = self
        trainer.add_callback("on_train_batch_start", AcceleratedSteps._begin_step)
        trainer.add_callback("on_train_batch_end", AcceleratedSteps._end_step)

    def accelerate(self, images: Tensor) -> None:
        """Decide what runs in the step on ``images``; called at the end of its preprocessing."""
        self.stand_ins = self.acceleration.stand_ins(images, self.passes())
        if self._prediction is not None:  # of a batch that never reached the model
            self._prediction.remove()
            self._prediction = None
        if NETWORK in self.stand_ins:
            self._prediction = predicted_by(unwrap_model(self.model), self.stand_ins[NETWORK])

    def obstacle(self) -> str:
        """Why the networks of this training have to run eagerly; empty if nothing speaks against graphs."""
        if self.world_size > 1:
            return "several devices train together"
        if self.args.multi_scale:
            return "multi_scale changes the size of the images"
        return "Ultralytics distills eagerly" if self.args.distill_model else ""

    def passes(self) -> dict[str, Pass]:
        """The forward passes of the next step, in order, that graphs or compiled code may stand in for."""
        if self.args.distill_model:  # Ultralytics' pair has no forward pass of its own
            return {}
        model = unwrap_model(self.model)
        return {NETWORK: Pass(model.predict, model, learns=True)}

    @staticmethod
    def _begin_step(trainer: AcceleratedSteps) -> None:
        trainer.acceleration.begin()

    @staticmethod
    def _end_step(trainer: AcceleratedSteps) -> None:
        trainer.acceleration.end()


class CompiledPass:
    """A pass compiled by TorchInductor for images of one shape, with the results of the eager one up to rounding."""

    def __init__(self, source: Pass, images: Tensor, backend: str = "inductor"):
        """Compile the pass by running it once; buffers and gradients are afterwards as before.

        Args:
            source: The pass.
            images: A batch of the shape of the later ones.
            backend: A backend of ``torch.compile``.

        Raises:
            Exception: There is no compiler, or the pass cannot be compiled.
        """
        self._source, self._shape, self._mode = source, images.shape, source.network.training
        self._run = torch.compile(source.run, dynamic=False, backend=backend)
        with unchanged(source.network):
            outputs = [output for output in tree_leaves(self._run(images)) if output.requires_grad]
            if outputs:  # the way back may be compiled only when it is gone for the first time
                parameters = [p for p in source.network.parameters() if p.requires_grad]
                torch.autograd.grad(outputs, parameters, [torch.ones_like(o) for o in outputs], allow_unused=True)

    def __call__(self, images: Tensor) -> Any:
        """The outputs for ``images``; computed eagerly for another shape or mode, which would be compiled anew."""
        if images.shape != self._shape or self._source.network.training != self._mode:
            return self._source.run(images)
        return self._run(images)


def predicted_by(model: Any, stand_in: StandIn) -> RemovableHandle:
    """Let the next call of an Ultralytics model on a batch take its predictions from ``stand_in``.

    The hook that does so is gone with that call: one that stays would get into copies and checkpoints of the model.

    Returns:
        Its handle, for the case that the call does not come.
    """

    def predictions(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        handle.remove()
        return (args[0], stand_in(args[0]["img"]))

    handle: RemovableHandle = model.register_forward_pre_hook(predictions)
    return handle
