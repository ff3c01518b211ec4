"""Signals that end a command as Ctrl-C does: with one line that says how it goes on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")
"""What schedulers, service managers, and closed terminals send; Windows has no SIGHUP."""


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end.

    Attributes:
        signal: Its number.
    """

    def __init__(self, number: int):
        """Note the number of the signal."""
        super().__init__(signal.Signals(number).name)
        self.signal = number


def exit_code(stopped: BaseException) -> int:
    """Exit code of a process that a signal has ended, as shells report it: 128 plus its number; 130 for Ctrl-C."""
    return 128 + int(getattr(stopped, "signal", signal.SIGINT))


@contextmanager
def own_handlers() -> Iterator[None]:
    """Put back, after the block, the handlers of signals that a package replaces in it, as Ray's of crashes."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # others cannot set any
        numbers = [getattr(signal, name) for name in (*NAMES, "SIGINT") if hasattr(signal, name)]
        before = {number: handler for number in numbers if (handler := signal.getsignal(number)) is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let the first signal of :data:`NAMES` raise :class:`Stopped` in the block; further ones do nothing.

    One that is ignored, such as SIGHUP under ``nohup``, stays ignored. Nothing changes outside of the main thread,
    where Python handles no signals.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    before = {}
    try:
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in {signal.SIG_IGN, None}:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
