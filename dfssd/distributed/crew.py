"""The first process of a run leads, the others take part in what it hands out.

Each ends with at most one line. The first one says why a run has ended wherever it can: a process that fails leaves its
message with the store of torchrun, through which all of them have found each other and which outlives them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from dfssd.distributed import group
from dfssd.distributed.place import place
from dfssd.errors import UserError
from dfssd.files import from_here, write_text
from dfssd.process import trust_files, trusts_files
from dfssd.remedies import explain_resource_errors
from dfssd.trust.limits import Limits, limits, set_limits

WAIT = timedelta(days=2)
"""How long the others wait for what the first process does alone, such as the preparation of a million images. That a
process has died is noticed at once, by its closed connection."""

COLLECTIVE = timedelta(hours=1)
"""How long the processes of a training wait for each other."""

FIRST_WORD = timedelta(hours=1)
"""How long the others wait until the first process has checked the command line."""

FAILED = 2
"""Exit code of a process whose run has failed."""

REPORT = "DFSSD_RUN_FOLDER_TO"
"""Environment variable: a file that gets the path of the run folder."""

_START, _END = "dfssd/start", "dfssd/end"
"""Keys of the store: the device with which the first process starts, and why the run has ended."""

_NOTHING = "nothing"
"""In the place of the device: all was done before, such as each run of a protocol."""

_LOST = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
"""Words of the errors of collectives whose other side has gone."""

_store: Any = None
_folder: Path | None = None
_served = 0
"""Lines that this process has led or taken part in before."""


def is_member() -> bool:
    """Whether this process takes part in a run that another one leads."""
    return place().rank > 0


def _connect() -> Any:
    """The store of torchrun."""
    global _store
    if _store is None:
        mine = place()
        found = next(dist.rendezvous("env://", mine.rank, mine.world, timeout=FIRST_WORD))
        _store = dist.PrefixStore(f"line {_served}", found[0])
    return _store


@contextlib.contextmanager
def led() -> Iterator[None]:
    """The first process runs the block, and lets the others go at its end; nothing where there are none.

    Raises:
        UserError: Another process has failed or ended; or what the block raises.
    """
    if place().world == 1:
        yield
        return
    with _until_terminated():
        try:
            yield
        except BaseException as e:
            problem = _explained(e)
            _leave("" if problem is None else str(problem))
            _part(in_order=False)
            if problem is None or problem is e:
                raise
            raise problem from e
        with contextlib.suppress(RuntimeError):  # one that has gone after all was done
            if _folder is not None:
                group.hand_out(None)
            else:
                _connect().set(_START, _NOTHING)
        _leave("")
        _part(in_order=True)


def _part(*, in_order: bool) -> None:
    """Let go of the others, at the end of a line."""
    global _store, _folder, _served
    with contextlib.suppress(RuntimeError):
        group.disconnect(in_order=in_order)
    _store, _folder, _served = None, None, _served + 1


def _explained(error: BaseException) -> BaseException | None:
    """The error of this process as it is told to the user; None for one that is to be shown as it is."""
    if isinstance(error, UserError) and not isinstance(error, TerminatedError):
        return error
    if isinstance(error, TerminatedError) or _is_lost(error):
        return UserError(*(_left().splitlines() or [_goes_on(_what_ended(error, "another process of this run"))]))
    return None


def _what_ended(error: BaseException, other: str) -> str:
    """How the run has ended where nobody has told more: this process was asked to end, or ``other`` has ended."""
    if isinstance(error, TerminatedError):
        return "SIGTERM has asked this process to end, as it does when another one has ended, or by a scheduler"
    return f"{other} has ended"


def _with_remedy(error: BaseException) -> BaseException:
    """An error about what the machine of this process lacks as one for the user, which names it; others as they are."""
    if _folder is None:
        return error
    try:
        with explain_resource_errors(_folder):
            raise error
    except UserError as e:
        return error if e is error else UserError(f"process {place().rank} on {socket.gethostname()}: {e}")
    except BaseException:
        return error


def _goes_on(what: str) -> str:
    """A problem, and how the run goes on."""
    there = _folder if _folder is not None and (_folder / "run.yaml").is_file() else None
    again = "start the same line again" if there is None else f"resume={from_here(there)} goes on"
    return f"{what}; what is finished is kept, and {again}"


def _is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in _LOST)
    )


def _leave(text: str) -> None:
    """Leave with the store why the run has ended; the first message stays."""
    with contextlib.suppress(RuntimeError):
        store = _connect()
        if not store.check([_END]):
            store.set(_END, text)
        if not store.check([_START]):
            store.set(_START, "")  # the others need not start


def _left() -> str:
    """Why the run has ended, as another process has left it with the store; empty if nobody has."""
    with contextlib.suppress(RuntimeError):
        store = _connect()
        if store.check([_END]):
            return str(store.get(_END).decode())
    return ""


class TerminatedError(UserError):
    """The process was asked to end, as torchrun does when another one has failed."""


@contextlib.contextmanager
def _until_terminated() -> Iterator[None]:
    """End the block with :class:`TerminatedError` when the process is asked to end."""

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise TerminatedError("ended by torchrun")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def gather_for(folder: Path, device: str) -> None:
    """Connect with the others, unless that was done for an earlier run, and let them see the run folder.

    Args:
        folder: Folder of the run.
        device: Where it trains: ``cpu``, or the numbers of the GPUs of each node.
    """
    global _folder
    if report := os.environ.get(REPORT):
        write_text(Path(report), str(folder))
    if place().world == 1:
        return
    if _folder is None:
        _connect().set(_START, device)
        _join(device)
        call_others(_obey, trusts_files(), limits())
    _folder = folder
    call_others(_see, folder)


def _obey(trust: bool, most: Limits) -> None:
    """What files may do in the first process, they may in this one."""
    trust_files(trust)
    set_limits(most)


def call_others(function: Callable[..., Any], *args: Any) -> None:
    """Let the other processes call a function, within :func:`~dfssd.distributed.group.together`; waits for none.

    Args:
        function: One of a module, which the others import.
        args: Its arguments, which are copied to them.
    """
    if place().world > 1:
        group.hand_out(pickle.dumps((function, args)))


@contextlib.contextmanager
def shared(function: Callable[..., Any], *args: Any) -> Iterator[None]:
    """Do the block together with the others, which call a function meanwhile: as :func:`call_others`."""
    call_others(function, *args)
    with group.together():
        yield


def _join(device: str) -> None:
    """Connect this process with the others, on its own device."""
    gpu = device != "cpu"
    if gpu:
        torch.cuda.set_device(own_gpu(device))
    group.connect(dist.PrefixStore("group", _connect()), gpu=gpu, wait=WAIT, collective=COLLECTIVE)


def own_gpu(device: str) -> int:
    """Number of the GPU of this process, of those that ``device`` lists for each node.

    Raises:
        UserError: There is no such GPU on this node.
    """
    listed, number = device.split(","), place().local_rank
    if number >= len(listed) or int(listed[number]) >= torch.cuda.device_count():
        raise UserError(
            f"device={device}: process {number} on {socket.gethostname()} has no GPU of its own, of "
            f"{torch.cuda.device_count()}: start as many processes on each node as device names GPUs"
        )
    return int(listed[number])


def own_device(device: str) -> str:
    """The device of this process, of those that ``device`` lists for each node, in Ultralytics' spelling."""
    return device if place().world == 1 or device == "cpu" else str(own_gpu(device))


def _see(folder: Path) -> None:
    """Note the folder of the run.

    Raises:
        UserError: It is not there on this node.
    """
    global _folder
    _folder = folder
    if not (folder / "run.yaml").is_file():
        raise UserError(
            f"process {place().rank}: {folder} is not there on {socket.gethostname()}; the run folder (project=) and "
            "the data must lie where all nodes find them under the same path"
        )


def serve() -> tuple[int, Path | None]:
    """Take part in what the first process hands out until it lets go.

    Returns:
        The exit code, and the folder of the last run.
    """
    code = FAILED
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as terminal:
        try:
            with _until_terminated():
                _serve()
            code = 0
        except BaseException as error:
            e = _with_remedy(error)
            if isinstance(e, UserError) and not isinstance(e, TerminatedError):
                logging.getLogger("dfssd").error(str(e))
                _leave(str(e))
            elif _explained(e) is None:
                how = "was interrupted" if isinstance(e, KeyboardInterrupt) else "has failed, see the log"
                _leave(_goes_on(f"process {place().rank} {how}"))
                raise
            elif not _is_told():
                ended = _what_ended(e, "the first process")
                print(f"error: process {place().rank}: {_goes_on(ended)}", file=terminal)
        finally:
            folder = _folder
            _part(in_order=not code)
    return code, folder


def _is_told() -> bool:
    """Whether some process has said why the run ends."""
    with contextlib.suppress(RuntimeError):
        return bool(_connect().check([_END]))
    return False


def _serve() -> None:
    if not (device := _connect().get(_START).decode()):
        raise TerminatedError("the line was not started")
    if device == _NOTHING:
        return
    _join(device)
    import ultralytics  # noqa: F401  # before its modules are told of the other processes

    logging.getLogger("ultralytics").setLevel(logging.ERROR)
    while (job := group.hand_out()) is not None:
        function, args = pickle.loads(job)
        with group.together():
            function(*args)
