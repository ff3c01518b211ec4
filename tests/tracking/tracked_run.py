"""Test material: the folder of a run that is being trained, epoch by epoch, and what is tracked of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfssd.config import Config
from dfssd.results.record import BoxRecord
from dfssd.runs.configure import configure
from dfssd.tracking.follow import RunTracking
from dfssd.tracking.tracker import Tracker
from tests.detection.recorded_run import results, write_curves, write_run

VERDICT = "With the 192 unlabeled images the student finds defects better."


class Training:
    """A run folder in which a teacher was trained, and a student is.

    Attributes:
        folder: The run folder.
        config: Its configuration.
        record: Its record.
    """

    def __init__(self, tmp_path: Path, name: str = "mine") -> None:
        self.folder = tmp_path / "plant" / name
        self.config: Config = configure({"data": "demo", "project": str(tmp_path / "plant"), "device": "cpu"})
        self.record: BoxRecord = results()
        write_run(self.folder, self.record)
        self.csv = self.folder / "train" / "student" / "results.csv"
        self._lines = self.csv.read_text(encoding="utf-8").splitlines(keepends=True)
        self.trained(3)

    def trained(self, epochs: int) -> None:
        """The student has been trained for so many epochs."""
        self.csv.write_text("".join(self._lines[: epochs + 1]), encoding="utf-8")

    def tracking(self, trackers: Mapping[str, Tracker], **options: Any) -> RunTracking:
        """What follows the run in a new session."""
        return RunTracking(self.folder, trackers, **options)

    def add(self, network: str, epochs: int) -> None:
        """Train another network."""
        write_curves(self.folder / "train" / network / "results.csv", 0.4, distilled=False, epochs=epochs)
