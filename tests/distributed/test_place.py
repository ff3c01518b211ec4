"""The place of a process: read from the environment, and hidden there."""

from __future__ import annotations

import os

import pytest

from dfssd.distributed import place
from dfssd.distributed.place import Place
from dfssd.errors import UserError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_place", Place())
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_a_process_is_alone() -> None:
    place.take_place()
    assert place.place() == Place(rank=0, world=1, local_rank=0, local_world=1)


def test_place_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics would read it; where the processes find each other stays."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    place.take_place()
    assert place.place() == Place(rank=3, world=4, local_rank=1, local_world=2)
    assert {"RANK", "WORLD_SIZE", "LOCAL_RANK"}.isdisjoint(os.environ) and os.environ["MASTER_ADDR"] == "first"
    place.take_place()  # by a second command of the same process
    assert place.place().rank == 3


@pytest.mark.parametrize("missing", ["WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"])
def test_half_of_the_variables_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in TORCHRUN.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"is set, as by torchrun, but not {missing}"):
        place.take_place()


def test_minus_one_stands_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "-1")
    place.take_place()
    assert place.place() == Place()
