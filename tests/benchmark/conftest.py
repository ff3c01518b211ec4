from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import yaml

from dfssd.evaluation.bootstrap import intervals
from tests.benchmark.fake_runs import SMALL, FakeTrain, main


@pytest.fixture
def fake() -> FakeTrain:
    return FakeTrain()


@pytest.fixture
def bench(tmp_path, monkeypatch, fake) -> Callable[..., int]:
    """Call the command in an empty folder on a grid; keyword arguments replace parts of the YAML."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dfssd.benchmark.summary.intervals", partial(intervals, rounds=20))
    (tmp_path / "private place").mkdir()
    data = tmp_path / "private place" / "DATA.zip"
    data.touch()

    def call(*words: str, **changes) -> int:
        (tmp_path / "grids").mkdir(exist_ok=True)
        (tmp_path / "grids" / "small.yaml").write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
        given = [] if any(word.startswith("data=") for word in words) else [f"data={data}"]
        return main(["grids/small.yaml", *given, *words], train=fake, check=lambda given: None)

    return call
