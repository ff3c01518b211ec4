"""Holds the mark ``train`` to its word, so that the fast path stays fast: see :class:`CostWatch`."""

from __future__ import annotations

import functools
import gc
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

CPU_SECONDS = 20.0
"""What a test without the mark may take; ten times what the slowest one takes on an idle core."""


_savefig = Figure.savefig


def draft(figure: Figure, target: Any, **options: Any) -> None:
    """Save a figure with a tenth of its pixels, without the search for a place for everything."""
    figure.set_layout_engine("none")
    _savefig(figure, target, **{**options, "dpi": 30})


class CostWatch:
    """Fails a test (or its fixture) without the mark ``train`` that trains, exports, starts Python or takes long.

    A pytest plugin. What is watched are the doors that every training, every export and every Python process passes,
    and the clock of the process.
    """

    def __init__(self, cpu_seconds: float = CPU_SECONDS) -> None:
        self.cpu_seconds = cpu_seconds
        self.item: pytest.Item | None = None
        self.patch = pytest.MonkeyPatch()

    def refuse(self, deed: str) -> None:
        """Fail the test that is running unless it is marked."""
        if self.item is not None and self.item.get_closest_marker("train") is None:
            pytest.fail(f"this test {deed}: mark it with @pytest.mark.train, or make it do without", pytrace=False)

    def pytest_collection_finish(self) -> None:
        """Watch the doors (Ultralytics is not loaded for tests that do without it), and let no module be collected.

        A training collects garbage several times, and would look at every object of every module each time.
        """
        gc.collect()
        gc.freeze()

        def watched(honest: Callable, deed: str, concerns: Callable[..., bool]) -> Callable:
            @functools.wraps(honest)  # what looks at the signature sees that of upstream
            def call(*args: Any, **kwargs: Any) -> Any:
                if concerns(*args):
                    self.refuse(deed)
                return honest(*args, **kwargs)

            return call

        def runs_python(_: Any, command: Any = (), *__: Any) -> bool:
            first = str([*command, ""][0])
            return not isinstance(command, str) and "python" in Path(first).name and shutil.which(first) is not None

        doors: list[tuple[Any, str, str, Callable[..., bool]]] = [
            (subprocess.Popen, "__init__", "starts a Python process", runs_python)
        ]
        doors += [(BaseProcess, "start", "starts a process", lambda *_: True)]
        for module, name, method, deed in (
            ("ultralytics.engine.trainer", "BaseTrainer", "train", "trains a network"),
            ("ultralytics.engine.model", "Model", "export", "exports a network"),
        ):
            if module in sys.modules:
                doors.append((getattr(sys.modules[module], name), method, deed, lambda *_: True))
        for owner, name, deed, concerns in doors:
            self.patch.setattr(owner, name, watched(getattr(owner, name), deed, concerns))

    def pytest_unconfigure(self) -> None:
        """Open the doors again; nanobind reports frozen objects as leaks at the end."""
        self.patch.undo()
        gc.unfreeze()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note the running test, and draw the figures of trainings coarsely: their look is tested with the reports."""
        self.item = item
        try:
            with pytest.MonkeyPatch.context() as patch:
                if item.get_closest_marker("train"):
                    patch.setattr(Figure, "savefig", draft)
                return (yield)
        finally:
            self.item = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Measure the test without its fixtures."""
        begin = time.process_time()
        result = yield
        if time.process_time() - begin > self.cpu_seconds:
            self.refuse(f"computes for more than {self.cpu_seconds:.0f} seconds")
        return result
