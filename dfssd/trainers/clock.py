"""Where the wall time of a training goes, by part, without making the device wait.

The parts divide the time of the process; the phases inside the steps (forward, backward, optimizer) are taken on the
device, by events on CUDA, and read once per epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

PARTS = ("setup", "waiting", "steps", "validation", "writing", "other")
"""Parts of a training that add up to its duration; the fields of the same names in the record say what each is."""

PHASES = ("forward", "backward", "optimizer")
"""Phases of a step, in order; the rest of ``steps`` is preprocessing, logging, and checks."""

_PART_AFTER = {
    "on_train_start": "other",
    "on_train_epoch_start": "waiting",
    "on_train_batch_end": "waiting",
    "on_fit_epoch_end": "other",
}
"""Callback of Ultralytics' loop -> the part that begins when it has run."""


class Clock:
    """Adds up wall time [s] by part; at every moment one part is running, at first ``setup``.

    Attributes:
        seconds: Part or phase -> seconds, up to the last change of the part.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        """Start the clock, which reads ``now`` [s]."""
        self.seconds = dict.fromkeys((*PARTS, *PHASES), 0.0)
        self._now, self._part, self._since = now, "setup", now()
        self._phases = Phases(torch.device("cpu"))

    def switch(self, part: str) -> str:
        """Let ``part`` run from now on; return the one that ends."""
        now, before = self._now(), self._part
        self.seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Let ``part`` run in the block, then the one from before."""
        before = self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def watch(self, scaler: torch.amp.GradScaler, device: torch.device) -> None:
        """Tell the phases of the steps on ``device``; the loss is scaled between forward and backward pass."""
        self._phases = Phases(device)
        scale = scaler.scale

        def scaled(outputs: Any) -> Any:
            self._phases.end("forward")
            return scale(outputs)

        scaler.scale = scaled  # type: ignore[method-assign]

    def before(self, event: str) -> None:
        """Note that the callbacks of an event of Ultralytics' loop are about to run."""
        if event == "on_train_batch_start":
            self.switch("steps")
            self._phases.begin()
        elif event == "on_train_batch_end":
            self._phases.end("backward")  # of a step without update
        elif event == "on_train_epoch_end":
            self.switch("steps")  # what the device has not done yet belongs to them
            for phase, seconds in self._phases.collect().items():
                self.seconds[phase] += seconds
            self.switch("other")

    def after(self, event: str) -> None:
        """Note that the callbacks of an event have run."""
        if part := _PART_AFTER.get(event):
            self.switch(part)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """The block is the optimizer's update."""
        self._phases.end("backward")
        yield
        self._phases.end("optimizer")

    def add(self, earlier: Mapping[str, float]) -> None:
        """Add the seconds of earlier sessions."""
        for name, seconds in earlier.items():
            if name in self.seconds:
                self.seconds[name] += seconds

    def record(self) -> dict[str, float]:
        """The seconds so far, by part and phase, for ``results.json``."""
        self.switch(self._part)
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}


class Phases:
    """Time stamps inside the steps of an epoch."""

    def __init__(self, device: torch.device):
        """Take the stamps on ``device``."""
        self._cuda = device.type == "cuda"
        self._device = device
        self._stamps: list[tuple[str, Any]] = []

    def begin(self) -> None:
        """A step begins."""
        self._stamps.append(("", self._stamp()))

    def end(self, phase: str) -> None:
        """A phase of the step ends; ignored outside a step, and if a later phase has ended already."""
        last = self._stamps[-1][0] if self._stamps else PHASES[-1]
        if last != PHASES[-1] and (not last or PHASES.index(last) < PHASES.index(phase)):
            self._stamps.append((phase, self._stamp()))

    def collect(self) -> dict[str, float]:
        """Seconds of each phase since the last call; waits for the device."""
        if self._cuda:
            torch.cuda.synchronize(self._device)
        found = dict.fromkeys(PHASES, 0.0)
        for (_, start), (phase, stop) in zip(self._stamps, self._stamps[1:], strict=False):
            if phase:
                found[phase] += self._between(start, stop)
        self._stamps.clear()
        return found

    def _stamp(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, start: Any, stop: Any) -> float:
        return float(start.elapsed_time(stop)) / 1000 if self._cuda else stop - start


def describe(seconds: Mapping[str, float]) -> str:
    """The seconds of a training in one line, as in ``61.2 s: steps 40.1 (forward 15.0, ...), waiting 2.0, ...``."""
    phases = ", ".join(f"{name} {seconds[name]:.1f}" for name in PHASES)
    parts = [f"{name} {seconds[name]:.1f}" + (f" ({phases})" if name == "steps" else "") for name in PARTS]
    return f"{sum(seconds[name] for name in PARTS):.1f} s: {', '.join(parts)}"
