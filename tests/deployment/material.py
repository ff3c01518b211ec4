"""Test material: an exported tiny detector, and photographs."""

from __future__ import annotations

from pathlib import Path

import ultralytics

from dfssd.evaluation.export import export
from tests.tiny_detection import save_detector

SIZE = 64
PHOTOS = sorted((Path(ultralytics.__file__).parent / "assets").glob("*.jpg"))
"""Two photographs that come with Ultralytics, one upright and one across."""


def save_onnx(folder: Path, **options) -> Path:
    """``student.onnx`` of a detector that is sure of something in every image."""
    options = {"imgsz": SIZE, **options}
    return export(save_detector(folder / "student.pt", seed=1), "onnx", task="detect", **options)
