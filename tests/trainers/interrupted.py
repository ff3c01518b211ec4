"""Trainings that are interrupted and go on, beside the same ones without an interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dfssd.trainers.results_csv import read_results_csv
from dfssd.trainers.stage import StageTrainer


def train(trainer: type[StageTrainer], overrides: dict[str, Any], stops: Sequence[tuple[int, int]] = ()) -> None:
    """Train, interrupted before each batch of ``stops`` (epoch, batch in it, both from 0), and resumed each time."""

    class Mortal(trainer):  # type: ignore[valid-type, misc]
        """Stops before one batch."""

        stop_before: tuple[int, int] | None = None

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            if (self.epoch, self.batch_in_epoch) == self.stop_before:
                raise KeyboardInterrupt
            ready: dict[str, Any] = super().preprocess_batch(batch)
            return ready

    resume: dict[str, Any] = {}
    for stop in (*stops, None):
        made = Mortal(overrides={**overrides, **resume})
        made.stop_before = stop
        try:
            made.train()
        except KeyboardInterrupt:
            assert stop is not None
            resume = {"resume": str(Path(overrides["save_dir"]) / "weights" / "last.pt")}
        else:
            assert stop is None, f"the training ended without reaching {stop}"


def assert_same_training(whole: Path, other: Path) -> None:
    """Two stages have the same rows, the same weights, and the same record, but for the time that they took."""
    rows, others = ([_untimed(row) for row in read_results_csv(stage / "results.csv")] for stage in (whole, other))
    assert len(rows) == len(others) > 0
    for row, found in zip(rows, others, strict=True):
        assert row == found, f"epoch {row['epoch']}"
    for name in ("last.pt", "best.pt"):
        files = [stage / "weights" / name for stage in (whole, other)]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            a, b = (torch.load(file, weights_only=False)["model"].state_dict() for file in files)
            assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    records = [
        json.loads(stage.with_name(f"{stage.name}.json").read_text(encoding="utf-8")) for stage in (whole, other)
    ]
    for record in records:
        record.pop("seconds")
    assert records[0] == records[1]
    assert not list(other.glob("weights/*state.pt")) and not list(other.glob("weights/writing_*"))


def _untimed(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if name != "time"}
