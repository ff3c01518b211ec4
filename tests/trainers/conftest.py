"""Pseudo-labels for the stage trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfssd.pseudo_labels.files import write_pseudo_labels
from dfssd.pseudo_labels.records import ImagePrediction
from tests.conftest import NAMES
from tests.thresholds import class_thresholds


@pytest.fixture
def pseudo(squares: Path, tmp_path: Path) -> tuple[Path, Path]:
    """List of unlabeled images and a folder with pseudo-labels: accepted, ignored and nothing in turn."""
    images = sorted((squares.parent / "plain" / "images").glob("*.png"))
    rows = []
    for k, image in enumerate(images):
        score = (0.9, 0.3, 0.05)[k % 3]
        rows.append(
            ImagePrediction(
                image,
                64,
                64,
                np.array([k % 2]),
                np.array([score], np.float32),
                np.array([[0.5, 0.5, 0.3, 0.3]], np.float32),
            )
        )
    thresholds = class_thresholds(2, tau_low=0.1, tau0=0.5, tau_max=0.9, decay=0.9)
    write_pseudo_labels(tmp_path / "pseudo", rows, thresholds, NAMES)
    listed = tmp_path / "train_unlabeled.txt"
    listed.write_text("\n".join(map(str, images)) + "\n", encoding="utf-8")
    return listed, tmp_path / "pseudo"
