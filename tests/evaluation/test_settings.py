from __future__ import annotations

import logging
from pathlib import Path

import pytest
from ultralytics.utils import LOGGER

from dfssd.errors import UserError
from dfssd.evaluation.settings import EvalSettings, quiet


def test_what_is_missing_is_named(tmp_path):
    settings = EvalSettings(tmp_path / "data.yaml", "holdout", imgsz=64, batch=2, device="cpu")
    (tmp_path / "data.yaml").write_text("test: test.txt\n")
    (tmp_path / "n.pt").touch()
    with pytest.raises(UserError, match=r"gone\.pt does not exist: nothing to evaluate"):
        settings.check(Path("gone.pt"))
    with pytest.raises(UserError, match="no 'holdout:' entry: add a list of images, or choose another split"):
        settings.check(tmp_path / "n.pt")
    (tmp_path / "data.yaml").write_text("holdout: test.txt\n")
    settings.check(tmp_path / "n.pt")


def test_quiet_keeps_warnings_and_is_undone_after_an_error():
    kept: list[int] = []
    handler = logging.Handler()
    handler.emit = lambda record: kept.append(record.levelno)  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    before = list(LOGGER.filters)
    try:
        with pytest.raises(RuntimeError), quiet():
            LOGGER.info("info")
            LOGGER.warning("warning")
            raise RuntimeError
        assert LOGGER.filters == before
        LOGGER.info("info again")
    finally:
        LOGGER.removeHandler(handler)
    assert kept == [logging.WARNING, logging.INFO]
