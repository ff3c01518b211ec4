"""Run a detector over a source, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.deployment.answers import Answers, Summary, answers_in, drawings_among, free_folder
from dfssd.deployment.networks import Network, open_network
from dfssd.deployment.sources import Frame, Input, find_inputs, without_password
from dfssd.interrupts import exit_code
from dfssd.log import LOGGER

_NOTHING = np.zeros((0, 6), np.float32)

_REPORT_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def predict(
    source: str | int | Sequence[str | int],
    model: str,
    *,
    out: str | None = None,
    conf: float | None = None,
    save: bool = True,
    every: int = 1,
    overwrite: bool = False,
) -> tuple[Path, Summary]:
    """Find the defects in all images, videos, and streams of a source, and write what was found.

    An image is NG if it has a box whose score is at least the threshold of its class, else OK. Ctrl-C, or what ends
    a command like it, ends it cleanly: everything found until then is written.

    Args:
        source: See :func:`~dfssd.deployment.sources.find_inputs`; drawings of earlier calls are left out.
        model: See :func:`~dfssd.deployment.networks.open_network`.
        out: Folder to write to; None: the next free ``runs/predict``.
        conf: Lowest score [0-1] of all classes; None: the thresholds in the file, 0.25 where it has none.
        save: Also save drawn images.
        every: Of so many frames of videos and streams, one is looked at.
        overwrite: Overwrite the answers of an earlier call in ``out``.

    Returns:
        The folder, and the counts.

    Raises:
        UserError: No such model or source, or a folder that cannot be written to or has other files where drawings go.
    """
    folder = free_folder(out, overwrite, save)
    inputs = find_inputs(source, leave_out=drawings_among)
    network = open_network(Path(model).expanduser(), conf)
    given = source if isinstance(source, (list, tuple)) else [source]
    shown = ", ".join(without_password(str(one)) for one in given)
    live = any(one.live for one in inputs)
    with (
        answers_in(
            folder, model=model, source=shown, names=network.names, thresholds=network.thresholds, save=save
        ) as answers,
        _Progress(inputs, every) as progress,
    ):
        answers.summary.live = live
        try:
            for frames in _batches(inputs, 1 if live else network.batch or 1, network.bits, every):
                for frame, verdict in _looked_at(network, frames, answers):
                    progress.advance(frame, verdict)
        except KeyboardInterrupt as e:
            answers.summary.exit_code = exit_code(e)
    return folder, answers.summary


def _batches(inputs: Sequence[Input], size: int, bits: int, every: int) -> Iterator[list[Frame]]:
    """The frames of all inputs in their order, as many at once as the network takes."""
    waiting: list[Frame] = []
    for one in inputs:
        for frame in one.frames(bits, every):
            waiting.append(frame)
            if len(waiting) == size:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _looked_at(network: Network, frames: Sequence[Frame], answers: Answers) -> Iterator[tuple[Frame, str]]:
    """Each frame with its verdict, after its boxes have been written."""
    frames = [_usable(network, frame) for frame in frames]
    images = [frame.pixels for frame in frames if frame.pixels is not None]
    start = time.perf_counter()
    found = iter(network.find(images) if images else [])
    if images:
        answers.summary.milliseconds.append((time.perf_counter() - start) * 1e3 / len(images))
    for frame in frames:
        yield frame, answers.add(frame, _NOTHING if frame.pixels is None else next(found))


def _usable(network: Network, frame: Frame) -> Frame:
    """The frame; without its pixels if nothing can be found in it."""
    problem = None if frame.pixels is None else network.problem(frame.pixels)
    return replace(frame, pixels=None, problem=problem) if problem else frame


class _Progress:
    """A bar on a terminal, else a line now and then; of live sources a line for each frame that is NG."""

    def __init__(self, inputs: Sequence[Input], every: int) -> None:
        counts = [one.count for one in inputs]
        known = [-(-count // every) for count in counts if count is not None]
        self.total = sum(known) if len(known) == len(counts) else None
        self.done, self.bad, self.told = 0, 0, time.monotonic()
        self.live = any(one.live for one in inputs)
        self.bar: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.task = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=console, transient=True)
            self.task = self.bar.add_task("predicting", total=self.total)
        self.shown = self.bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.__exit__(*error)

    def advance(self, frame: Frame, verdict: str) -> None:
        """Show that a frame is done."""
        self.done += 1
        self.bad += verdict == "NG"
        if self.live and verdict == "NG":
            LOGGER.info(f"{frame.name}, frame {frame.number}: NG")
        if self.task is not None:
            self.shown.update(self.task, advance=1, description=f"predicting, {self.bad} NG")
        elif time.monotonic() - self.told > _REPORT_EVERY:
            self.told = time.monotonic()
            LOGGER.info(f"{self.done}{f' of {self.total}' if self.total else ''} looked at, {self.bad} NG")
