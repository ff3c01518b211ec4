"""Test material: an exported tiny detector, and photographs."""

from __future__ import annotations

from pathlib import Path

import ultralytics

from dfssd.evaluation.exporter import export
from tests.tiny_detection import save_detector

SIZE = 64
PHOTOS = sorted((Path(ultralytics.__file__).parent / "assets").glob("*.jpg"))
"""Two photographs that come with Ultralytics, one upright and one across."""

BLOCKED = {
    "torch",
    "torchvision",
    "ultralytics",
    "matplotlib",
    "scipy",
    "pandas",
    "supervision",
    "albumentations",
    "onnx",
}
"""What ``pip install --no-deps`` of docs/deploy.md leaves out, as far as anything here could import it."""

WITHOUT_TORCH = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Blocked())
"""
"""The beginning of a program in which they cannot be imported."""


def save_onnx(folder: Path, **options) -> Path:
    """``student.onnx`` of a detector that is sure of something in every image."""
    options = {"imgsz": SIZE, **options}
    return export(save_detector(folder / "student.pt", seed=1), "onnx", task="detect", **options)
