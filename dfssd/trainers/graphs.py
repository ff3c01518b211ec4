"""Networks whose forward and backward passes are replayed as CUDA graphs.

A small network spends a training step on launching kernels, some microseconds each, hundreds of them in either
direction. A graph holds the launches of a pass once and for all: inputs, weights, activations and outputs keep their
addresses, and one call launches everything. So the outputs of a pass are overwritten by the next one, and its
activations by its backward pass: each forward pass allows one backward pass, before any other pass of the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

WARM_UPS = 3
"""Passes before the recording: libraries choose their kernels and take their workspace in the first ones."""


DRAWING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Layers that draw random numbers: replayed, they would draw others than in an eager training of the same seed."""


class CaptureError(RuntimeError):
    """A network cannot be captured; the message says why."""


class Pass(NamedTuple):
    """A forward pass that may be captured.

    Attributes:
        run: Images (N, 3, H, W) -> nested structure of tensors; depends on the images and on the state of
            ``network`` alone, and does the same for each batch.
        network: The module whose parameters and buffers it reads.
        learns: Its parameters get gradients; else ``run`` computes without.
    """

    run: Callable[[Tensor], Any]
    network: nn.Module
    learns: bool


class Recorder(Protocol):
    """Records what functions do with tensors, to do it again with the same memory."""

    turn: int
    """Passes so far: tells whether the memory of one has been used by another since."""

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Run a function where the recording will run."""

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
        """Record a function; returns its results, and what fills the same tensors with new ones."""


class CudaRecorder:
    """Records CUDA graphs, all with the same pool of memory.

    Graphs with one pool have to be replayed in the order in which they were recorded: what one no longer needs is used
    by the next. They are recorded on a stream of their own, as CUDA demands, with the errors of this thread only: the
    loader's thread that pins memory must not spoil a recording.
    """

    def __init__(self, device: torch.device):
        """Prepare the pool and the stream on ``device``."""
        self.turn = 0
        self.device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Run a function on the stream of the recordings."""
        with torch.cuda.device(self.device):
            present = torch.cuda.current_stream(self.device)
            self._stream.wait_stream(present)
            with torch.cuda.stream(self._stream):
                function()
            present.wait_stream(self._stream)

    def record(self, function: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
        """Record a graph; nothing is computed before its first replay."""
        with torch.cuda.device(self.device):
            graph, present = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    results = function()
            finally:  # a recording that fails would leave its stream in place
                torch.cuda.set_stream(present)
        return results, graph.replay


class CapturedPass:
    """A pass that is replayed for images of one shape, in one mode; a callable like ``run`` of the pass.

    Gradients of the parameters do not travel through autograd, one launch each, but are added all at once. So
    ``loss.backward()`` fills ``grad`` as usual, but ``torch.autograd.grad`` finds no way to the parameters.
    """

    def __init__(self, source: Pass, images: Tensor, recorder: Recorder):
        """Record the pass; weights, statistics, gradients and random numbers are afterwards as before.

        Args:
            source: The pass.
            images: A batch of the shape, type and layout of the later ones.
            recorder: Records it.

        Raises:
            CaptureError: The network draws random numbers, or autocast of this device type cannot be told.
            RuntimeError: The recording failed, as CUDA says.
        """
        if source.learns and any(isinstance(m, DRAWING) and m.p > 0 for m in source.network.modules()):
            raise CaptureError("the network draws random numbers (dropout)")
        self._source, self._recorder = source, recorder
        self._state = _State(source.network)
        self._images = torch.empty_like(images).copy_(images)
        self._parameters: list[Tensor] = [p for p in source.network.parameters() if source.learns and p.requires_grad]
        self._kept = _loose_tensors(source.network)
        self._anchor = torch.zeros((), device=images.device, requires_grad=True)
        grad = torch.set_grad_enabled(source.learns)
        self._leaves: list[Tensor] = [nn.Parameter(p.detach()) for p in self._parameters]
        stand_ins = {id(p): leaf for p, leaf in zip(self._parameters, self._leaves, strict=True)}
        kind = images.device.type
        with grad, unchanged(source.network), _uncached_autocast(kind), _replaced(source.network, stand_ins):
            for function in (self._reach, *[self._try] * WARM_UPS):
                recorder.warm_up(function)
            self._record()
        # only now: a frozen network may round its weights in its first pass
        self._conditions = self._state.conditions(images)

    def _unique_outputs(self) -> list[Tensor]:
        """The outputs of a pass, each once: maps of compared layers, for example, may be those that the head reads."""
        leaves, self._structure = tree_flatten(self._source.run(self._images))
        unique = {id(leaf): leaf for leaf in leaves}
        places = {key: i for i, key in enumerate(unique)}
        self._places = [places[id(leaf)] for leaf in leaves]
        return list(unique.values())

    def _try(self) -> None:
        """One pass forward and, if the network learns, back."""
        outputs = [o for o in self._unique_outputs() if o.requires_grad]
        if self._source.learns:
            torch.autograd.grad(outputs, self._leaves, [torch.ones_like(o) for o in outputs], allow_unused=True)

    def _reach(self) -> None:
        """Find out which parameters each output depends on."""
        self._reached: list[set[int]] = []
        for output in self._unique_outputs():
            if self._source.learns and output.requires_grad:
                ones = torch.ones_like(output)
                found = torch.autograd.grad(output, self._leaves, ones, retain_graph=True, allow_unused=True)
                self._reached.append({id(p) for p, g in zip(self._parameters, found, strict=True) if g is not None})

    def _record(self) -> None:
        live: list[Tensor] = []  # outputs with their autograd graph, for the time of the recording only

        def forward() -> list[Tensor]:
            live.extend(self._unique_outputs())
            return [output.detach() for output in live]

        self._outputs, self._replay_forward = self._recorder.record(forward)
        self._differentiable = [i for i, output in enumerate(live) if output.requires_grad]
        self._incoming: list[Tensor] = []
        if not self._source.learns:
            return
        outputs = [live[i] for i in self._differentiable]
        live.clear()
        self._incoming = [torch.zeros_like(self._outputs[i]) for i in self._differentiable]
        self._used = (False,) * len(self._incoming)

        def backward() -> list[Tensor]:
            with torch.autocast(
                self._images.device.type, enabled=False
            ):  # the way back of an eager step is outside of it
                found = torch.autograd.grad(outputs, self._leaves, self._incoming, allow_unused=True)
            outputs.clear()
            pairs = [(p, g) for p, g in zip(self._parameters, found, strict=True) if g is not None]
            self._parameters = [p for p, _ in pairs]
            return [_like(p, g) for p, g in pairs]

        gradients, self._replay_backward = self._recorder.record(backward)
        self._all_pairs = list(zip(self._parameters, gradients, strict=True))
        self._pairs_by_use: dict[tuple[bool, ...], list[tuple[Tensor, Tensor]]] = {}

    def _pairs(self, used: tuple[bool, ...]) -> list[tuple[Tensor, Tensor]]:
        """The parameters, with the places of their gradients, that the ``used`` outputs depend on.

        Others get no gradient at all, as without a graph: an optimizer would take a step even with a gradient of zero.
        """
        if used not in self._pairs_by_use:
            reached = set().union(*(ids for ids, one in zip(self._reached, used, strict=True) if one))
            self._pairs_by_use[used] = [(p, g) for p, g in self._all_pairs if id(p) in reached]
        return self._pairs_by_use[used]

    def __call__(self, images: Tensor) -> Any:
        """The outputs for ``images``, valid until the next call; computed anew where the conditions are others."""
        if self._state.conditions(images) != self._conditions:
            return self._source.run(images)
        if self._source.learns and torch.is_grad_enabled():
            leaves = list(_Replay.apply(self._anchor, self, images))
        else:
            self._forward(images)
            leaves = [output.detach() for output in self._outputs]
        return tree_unflatten([leaves[i] for i in self._places], self._structure)

    def _forward(self, images: Tensor) -> int:
        """Replay the forward pass; returns its turn."""
        self._images.copy_(images)
        self._replay_forward()
        self._recorder.turn += 1
        return self._recorder.turn

    def _backward(self, turn: int, gradients: Sequence[Tensor | None]) -> None:
        """Replay the backward pass and add the gradients to those of the parameters."""
        if turn != self._recorder.turn:
            raise RuntimeError("a captured pass goes back once, before any other pass: its activations are overwritten")
        self._recorder.turn += 1
        used = tuple(gradient is not None for gradient in gradients)
        for i, place in enumerate(self._incoming):
            if not used[i] and self._used[i]:
                place.zero_()
        self._used = used
        given = [(place, g) for place, g in zip(self._incoming, gradients, strict=True) if g is not None]
        torch._foreach_copy_([place for place, _ in given], [g for _, g in given])
        pairs = self._pairs(used)
        # gradients of the batch before, which are still to be added to, lie where the replay will write
        if shared := [p for p, g in self._all_pairs if p.grad is not None and p.grad.data_ptr() == g.data_ptr()]:
            for p, own in zip(shared, torch._foreach_mul([_gradient(p) for p in shared], 1.0), strict=True):
                p.grad = own
        self._replay_backward()
        sums: tuple[list[Tensor], list[Tensor]] = ([], [])
        for p, g in pairs:
            if p.grad is None:
                p.grad = g
            else:
                sums[0].append(p.grad)
                sums[1].append(g)
        if sums[0]:
            torch._foreach_add_(*sums)


class _Replay(torch.autograd.Function):
    """The forward and the backward replay of one pass as a node of autograd."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, captured: CapturedPass, images: Tensor) -> tuple[Tensor, ...]:
        """Replay the forward pass; ``anchor`` makes autograd come back."""
        ctx.captured, ctx.turn = captured, captured._forward(images)
        ctx.set_materialize_grads(False)
        outputs = tuple(output.detach() for output in captured._outputs)
        fixed = [o for i, o in enumerate(outputs) if i not in captured._differentiable]
        ctx.mark_non_differentiable(*fixed)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, None, None]:
        """Replay the backward pass."""
        captured = ctx.captured
        with torch.no_grad():
            captured._backward(ctx.turn, [gradients[i] for i in captured._differentiable])
        return None, None, None


class _State:
    """What must not change between recording and replay: the state of a network, listed once."""

    def __init__(self, network: nn.Module):
        self._modules = list(network.modules())
        self._parameters = list(network.parameters())
        self._buffers = list(network.buffers())

    def conditions(self, images: Tensor) -> tuple[Any, ...]:
        """Shape and type of the images, autocast, modes of all layers, which parameters learn, where all of it lies."""
        kind = images.device.type
        return (
            images.shape,
            images.dtype,
            images.device,
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)),
            [module.training for module in self._modules],
            [(p.data_ptr(), p.requires_grad) for p in self._parameters],
            [b.data_ptr() for b in self._buffers],
        )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the memory layout of its parameter, as autograd would leave it."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)


def _loose_tensors(network: nn.Module) -> list[Tensor]:
    """Tensors that layers keep besides parameters and buffers, such as the anchors of a detection head.

    A graph reads them where they lay when it was recorded; a later pass for another size would replace and free them.
    """
    return [v for m in network.modules() for v in vars(m).values() if isinstance(v, Tensor)]


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Block after which the buffers of a network, running statistics above all, are as they were before."""
    buffers = list(network.buffers())
    before = [b.clone() for b in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for b, value in zip(buffers, before, strict=True):
                b.copy_(value)


@contextmanager
def _replaced(network: nn.Module, stand_ins: dict[int, Tensor]) -> Iterator[None]:
    """Block in which other tensors, by the id of the parameter, stand in for the parameters of a network.

    They share its memory, but not its place in autograd: where the loss of the last batch is still there, as in the
    loop of Ultralytics, a parameter belongs to the stream of that batch, which a recording must not touch.
    """
    places = [(m._parameters, name) for m in network.modules() for name in m._parameters]
    before = [(parameters, name, parameters[name]) for parameters, name in places]
    try:
        for parameters, name, parameter in before:
            parameters[name] = stand_ins.get(id(parameter), parameter)  # type: ignore[assignment]
        yield
    finally:
        for parameters, name, parameter in before:
            parameters[name] = parameter


@contextmanager
def _uncached_autocast(kind: str) -> Iterator[None]:
    """Block with the present autocast, which casts every weight anew: a recording must not read a cast of before."""
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    with torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False):
        yield
