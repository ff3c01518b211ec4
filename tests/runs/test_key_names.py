"""The keys that are known without torch and Ultralytics are those that a run knows."""

from __future__ import annotations

import pytest

from dfssd.config import parse_arguments
from dfssd.errors import UserError
from dfssd.runs.configure import configure, name_spaces
from dfssd.runs.key_names import configure_data, names_only


def test_they_are_the_same() -> None:
    run, data = name_spaces(), names_only()
    assert set(data.training) == set(run.training)
    assert data.terms == run.terms
    assert data.feature_terms == run.feature_terms
    assert list(data.schedules) == list(run.schedules)


@pytest.mark.parametrize(
    "words",
    [
        "data=demo epochs=3 imgsz=320 optimizer=SGD lr0=0.1 hwjs.weight=2 device=0 format=onnx,openvino",
        "data=demo recipe=tskd ded.background=0.4 pseudo=online",
        "data=demo recipe=mffmetal student=mffmetal-30 split=grouped seg.kd=3",
        "data=demo recipe=sdidd steps=3,3 modes=sdidd",
    ],
)
def test_a_whole_training_line_is_accepted(words: str) -> None:
    given = parse_arguments(words.split())
    assert configure_data(given) == configure(given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data=demo epoch=3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("data=demo hwjs.wieght=2", "did you mean 'hwjs.weight'?"),
        ("data=demo recipe=tskd ded.backgroud=1", "did you mean 'ded.background'?"),
        ("data=demo rect=true", "rect is not available here"),
        ("data=demo labeled=2.5", "labeled=2.5 must be a share"),
        ("data=demo resize_labels=maybe", "resize_labels=maybe must be one of: True, False"),
        ("data=demo labels=[]", "labels=[] must be a string or a list of strings"),
        ("data=demo recipe=mffmetal labels=voc", "labels acts only in detection"),
    ],
)
def test_mistakes_are_refused(words: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        configure_data(parse_arguments(words.split()))
    assert message.lower() in str(caught.value).lower()
