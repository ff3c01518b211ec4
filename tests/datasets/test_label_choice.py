"""``labels=``: where its places are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfssd.datasets.label_choice import LabelChoice


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("labels", "d/labels"),
        ("d/labels", "d/labels"),
        (".", "d/work"),
        ("../labels", "d/labels"),
        ("other", "d/work/other"),
    ],
)
def test_places_are_those_of_the_source_first(entry, found, tmp_path, monkeypatch) -> None:
    for folder in ("d/labels", "d/work/labels", "d/work/other", "d/work/d/labels"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "d/work" if entry != "d/labels" else tmp_path)
    assert LabelChoice([entry], tmp_path / "d").places == [Path(tmp_path, found)]
