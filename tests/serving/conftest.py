"""The exported detector of the tests of the deployment, and one that takes any number of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment.conftest import model
from tests.deployment.material import save_onnx

__all__ = ["model"]


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``student.onnx`` for any number of images of any size."""
    return save_onnx(tmp_path_factory.mktemp("dynamic"), dynamic=True)
