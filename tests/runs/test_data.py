"""Settings of the data that all tasks share."""

from __future__ import annotations

import pytest

from dfssd.config import parse_arguments
from dfssd.runs.data import split_options
from dfssd.runs.key_names import configure_data


@pytest.mark.parametrize(("words", "told"), [("labeled=1", True), ("labeled=1.0", False), ("labeled=2", False)])
def test_one_label_is_not_all_labels(words: str, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    options = split_options(configure_data(parse_arguments(["data=x", words])))
    assert options.labeled == float(words.partition("=")[2])
    assert ("keeps the labels of one image" in caplog.text) is told
