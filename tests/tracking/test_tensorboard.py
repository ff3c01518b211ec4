"""The event files that TensorBoard shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfssd.tracking.tracker import load_trackers
from tests.tracking.tracked_run import VERDICT, Training

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'dfssd[tracking]'")


def events(folder: Path) -> Any:
    """What TensorBoard reads from a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def text(read: Any, tag: str) -> str:
    return read.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_two_sessions_of_a_run(tmp_path: Path) -> None:
    training = Training(tmp_path)
    for epochs in (3, 5):
        training.trained(epochs)
        tracking = training.tracking(load_trackers(["tensorboard"]))
        tracking.follow(training.config, training.record)
        tracking.finish(training.record, VERDICT)
    read = events(training.folder / "tensorboard")
    assert {"teacher/val/mAP50-95", "student/train/hwjs", "student/val/mAP50", "student/seconds"} <= set(
        read.Tags()["scalars"]
    )
    score = read.Scalars("student/val/mAP50-95")
    assert [point.step for point in score] == [1, 2, 3, 4, 5] and score[0].value < score[-1].value
    assert read.Scalars("test/student/map50_95")[0].value == pytest.approx(0.412)
    assert text(read, "verdict") == VERDICT
    assert "| data.train_labeled | 96 |" in text(read, "parameters")
    assert len(read.Tensors("parameters/text_summary")) == 1, "the second session repeats nothing"
    assert "results.json" in text(read, "files")
