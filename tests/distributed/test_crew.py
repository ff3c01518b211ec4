"""How a run of several processes ends, and in which words; here of one process with a store of its own."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from dfssd.distributed import crew, place
from dfssd.distributed.place import Place
from dfssd.errors import UserError
from dfssd.files import write_yaml

GOES_ON = "what is finished is kept, and resume=run goes on"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dist.HashStore:
    """The store that the processes of a run share, whose folder is ``run``; this is the first of two."""
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "run" / "run.yaml", {})
    found = dist.HashStore()
    for module, name, value in (
        (place, "_place", Place(rank=0, world=2, local_rank=0, local_world=2)),
        (crew, "_store", found),
        (crew, "_folder", tmp_path / "run"),
        (crew, "_served", 0),
    ):
        monkeypatch.setattr(module, name, value)
    return found


@pytest.fixture
def second(store: dist.HashStore, monkeypatch: pytest.MonkeyPatch) -> dist.HashStore:
    """The same of the second process."""
    monkeypatch.setattr(place, "_place", Place(rank=1, world=2, local_rank=1, local_world=2))
    return store


def told(store: dist.HashStore) -> str:
    """Why the run has ended."""
    return str(store.get("dfssd/end").decode())


def test_a_signal_is_not_taken_for_the_end_of_another_process(store: dist.HashStore) -> None:
    with pytest.raises(UserError) as found, crew.led():
        signal.raise_signal(signal.SIGTERM)
    assert str(found.value).startswith("SIGTERM has asked this process to end, as it does when another one has ended,")
    assert str(found.value).endswith(f"or by a scheduler; {GOES_ON}")


def test_a_closed_connection_is_the_end_of_another_process(store: dist.HashStore) -> None:
    with pytest.raises(UserError, match=re.escape(f"another process of this run has ended; {GOES_ON}")), crew.led():
        raise RuntimeError("[gloo] Connection closed by peer")


def test_what_another_process_has_left_is_said_instead(store: dist.HashStore) -> None:
    store.set("dfssd/end", "process 1: no memory")
    with pytest.raises(UserError, match=r"^process 1: no memory$"), crew.led():
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "the GPU ran out of memory: lower batch or"),
        (OSError(28, "No space left on device"), r"the disk of .*run is full \(No space left on device, .*: make room"),
    ],
)
def test_what_the_machine_of_another_process_lacks_is_told_with_the_remedy(
    second: dist.HashStore, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    def serve() -> None:
        raise error

    monkeypatch.setattr(crew, "_serve", serve)
    assert crew.serve()[0] == crew.FAILED
    assert re.match(rf"process 1 on {socket.gethostname()}: {why}.*then go on with: dfssd resume=run$", told(second))


@pytest.mark.parametrize(
    ("error", "what"), [(KeyError("a bug"), "has failed, see the log"), (KeyboardInterrupt(), "was interrupted")]
)
def test_other_ends_of_another_process(
    second: dist.HashStore, monkeypatch: pytest.MonkeyPatch, error: BaseException, what: str
) -> None:
    def serve() -> None:
        raise error

    monkeypatch.setattr(crew, "_serve", serve)
    with pytest.raises(type(error)):
        crew.serve()
    assert told(second) == f"process 1 {what}; {GOES_ON}"


def test_a_line_without_anything_to_do_ends_well(store: dist.HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a protocol whose runs have all been finished."""
    monkeypatch.setattr(crew, "_folder", None)
    with crew.led():
        pass
    monkeypatch.setattr(place, "_place", Place(rank=1, world=2, local_rank=1, local_world=2))
    monkeypatch.setattr(crew, "_store", store)
    assert crew.serve() == (0, None)
