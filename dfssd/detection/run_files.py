"""The files that the report of a detection run is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfssd.config.resolution import TRAINING_DEFAULTS
from dfssd.detection.examples import Example, choose_examples
from dfssd.evaluation.detections import PREDICTIONS, Detections
from dfssd.files import read_json, read_yaml
from dfssd.reporting.run_files import Curves, RunFiles, read_csv, weight_sizes
from dfssd.reporting.words import ROLES
from dfssd.results.record import FILE, BoxRecord
from dfssd.results.sections import SCRATCH, Role


@dataclass(frozen=True)
class DetectionFiles(RunFiles):
    """Files of the folder of a detection run, read once.

    Attributes:
        record: Its ``results.json``.
        curves: Role -> its ``train/<role>/results.csv``; empty for one that was not trained here.
        predictions: Its ``pseudo/predictions.json``; empty without one.
        imgsz: Size of the training images [px].
        examples: Test images that show what the student finds and misses; empty without detections.
    """

    record: BoxRecord
    curves: Mapping[Role, Curves] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)
    imgsz: int = TRAINING_DEFAULTS["imgsz"]
    examples: tuple[Example, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> DetectionFiles:
        """Read a run folder.

        Raises:
            UserError: ``results.json`` is missing or broken.
        """
        run = folder / "run.yaml"
        train = (read_yaml(run).get("train") or {}) if run.is_file() else {}
        record = BoxRecord.read(folder / FILE)
        return cls(
            folder,
            weight_sizes(folder),
            record,
            curves={role: read_csv(folder / "train" / role / "results.csv") for role in (*ROLES, SCRATCH)},
            predictions=read_json(folder / "pseudo" / "predictions.json"),
            imgsz=train.get("imgsz", cls.imgsz),
            examples=_examples(folder, record),
        )

    @property
    def lowest_score(self) -> float | None:
        """Score below which a box of the teacher is background (``pseudo.tau_low``); None if it is not known."""
        low: float | None = (self.predictions.get("rule") or {}).get("tau_low")
        return low


def _examples(folder: Path, record: BoxRecord) -> tuple[Example, ...]:
    """Test images to show, from the recorded predictions; none if these, or the list of the images, are gone."""
    images = folder / "splits" / "test.txt"
    files = {role: file for role in record.test if (file := folder / "test" / role / PREDICTIONS).is_file()}
    if not images.is_file() or not record.operating:
        return ()
    listed = [Path(line) for line in images.read_text(encoding="utf-8").splitlines() if line]
    return choose_examples(record, {role: Detections.read(file) for role, file in files.items()}, listed)
