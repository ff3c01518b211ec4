from __future__ import annotations

import pytest

from dfssd.reporting import figures


def test_most_interesting_classes_are_kept(tmp_path, monkeypatch):
    """Of too many classes, in the order of their interest."""
    shown = []
    monkeypatch.setattr(figures, "list_classes", lambda axes, names: shown.extend(names))
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: None)
    scores = {"student": {f"class {i}": 0.5 for i in range(figures.MOST_CLASSES + 2)}}
    options = {"labels": {"student": "student"}, "color": lambda role: "black", "score": "IoU"}
    interest = {name: i for i, name in enumerate(scores["student"])}
    assert figures.class_bars(scores, tmp_path / "x.png", interest=interest.__getitem__, **options)
    assert shown == [f"class {i}" for i in range(figures.MOST_CLASSES + 1, 1, -1)]


def test_common_scores_are_of_classes_that_all_networks_have():
    scores = {"a": {"x": 0.1, "y": None, "z": 0.3}, "b": {"x": 0.0, "y": 0.2}}
    assert figures.common_scores(scores) == {"a": {"x": 0.1}, "b": {"x": 0.0}}
    assert figures.common_scores({}) == {}


@pytest.mark.parametrize(("name", "short"), [("a.png", "a.png"), ("x" * 30 + "tail.png", "xxxxxxxxx...xil.png")])
def test_long_names_lose_their_middle(name, short):
    result = figures.shortened(name, 20)
    assert len(result) <= 20 and result[:3] == short[:3] and result[-4:] == short[-4:]
    assert (result == name) is (len(name) <= 20)
