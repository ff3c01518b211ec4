"""Weights & Biases in its offline mode: what its file of records holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dfssd.errors import UserError
from dfssd.tracking.tracker import load_trackers
from tests.tracking.tracked_run import VERDICT, Training

wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'dfssd[tracking]'")

BLOCK = 1 << 15


def entries(file: Path) -> Iterator[bytes]:
    """The entries of a file in LevelDB's log format, after a header of seven bytes."""
    data, place, entry = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # what is left of a block is too small for a part
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        entry += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield entry
            entry = b""


def records(folder: Path) -> list[Any]:
    """The records of the only session in a run folder."""
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return [record.FromString(entry) for entry in entries(file)]


@pytest.mark.train
def test_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.setup(wandb.Settings(mode="offline"))
    training = Training(tmp_path)
    tracking = training.tracking(load_trackers(["wandb"]))
    tracking.follow(training.config, training.record)
    tracking.finish(training.record, VERDICT)
    found = records(training.folder)
    (run,) = (record.run for record in found if record.HasField("run"))
    assert (run.project, run.display_name) == ("plant", "mine")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["data.train_labeled"] == 96 and config["recipe"] == "dfssd"
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    steps = [row["student/optimizer_step"] for row in rows if "student/optimizer_step" in row]
    assert steps == [1, 2, 3] and sum("teacher/val/mAP50-95" in row for row in rows) == 30
    summary = {
        item.key: json.loads(item.value_json)
        for record in found
        if record.HasField("summary")
        for item in record.summary.update
    }
    assert summary["verdict"] == VERDICT and summary["test/student/map50_95"] == 0.412
    (artifact,) = (
        r.request.log_artifact.artifact if r.HasField("request") else r.artifact
        for r in found
        if r.HasField("artifact")
    )
    assert {entry.path for entry in artifact.manifest.contents} >= {"results.json", "weights/student.pt"}
    assert wandb.run is None, "a run of the user stays the active one"


def test_without_a_login_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    with pytest.raises(UserError, match="you are not logged in to Weights & Biases: log in with wandb login"):
        load_trackers(["wandb"])
