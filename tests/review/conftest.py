"""A run without trained networks whose unlabeled images can be reviewed: its real stages up to the pseudo-labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NAMES, write_squares
from tests.tiny_detection import TINY, save_detector

UNLABELED = 12


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """The folder of such a run; its student is another network than its teacher. Nothing may change it."""
    from dfssd.pipeline import open_run
    from dfssd.runs.configure import configure

    root = tmp_path_factory.mktemp("review")
    data = write_squares(root / "data", train=8, val=4, test=4, plain=UNLABELED)
    keys = {"data": str(data), "teacher": str(save_detector(root / "t.pt", names=NAMES)), "student": TINY}
    keys |= {"data_dir": str(root / "datasets"), "project": str(root / "runs"), "device": "cpu"}
    run = open_run(configure({**keys, "imgsz": 64, "batch": 4, "epochs": 2, "labeled": 4}), "dfssd")
    for name in ("prepare", "teacher", "pseudo-label"):
        run.folder.run_stage(name, getattr(run, name.replace("-", "_")), earlier=run.stages())
    save_detector(run.weights / "student.pt", seed=1, names=NAMES)
    return run.folder.path
