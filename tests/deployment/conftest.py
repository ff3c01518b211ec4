"""One exported detector for all tests of the deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment.material import save_onnx


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``student.onnx`` with a fixed input of 64 px; ``student.pt`` lies beside it."""
    return save_onnx(tmp_path_factory.mktemp("model"))
