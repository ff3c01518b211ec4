"""What a detection run checks before it starts: terms that fit the networks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from dfssd.cli import main
from dfssd.detection.checks import check_before_start
from dfssd.errors import UserError
from dfssd.results.record import BoxRecord
from dfssd.runs.configure import configure
from dfssd.runs.folder import RunFolder


def checked(**given: object) -> tuple[str, ...]:
    config = configure({"data": "demo", "device": "cpu", "workers": 0, **given})
    return tuple(check_before_start(config).terms)


@pytest.mark.parametrize(
    ("recipe", "left"),
    [
        ("dfssd", ("cwd", "response_cls")),
        ("dfssd-paper", ("hwjs", "response_cls")),
        ("tskd", ("crd_cls", "ded", "ded_structure")),
    ],
)
def test_terms_of_a_recipe_step_aside_where_there_is_no_box_distribution(caplog, recipe: str, left: tuple) -> None:
    caplog.set_level(logging.INFO, logger="dfssd")
    assert checked(recipe=recipe, teacher="yolo26s.yaml", student="yolo26n.yaml") == left
    [line] = [text for text in caplog.messages if "aside" in text]
    assert line.startswith("student=yolo26n.yaml has no box distribution: ") and line.endswith(
        f"left: {', '.join(left)}"
    )


@pytest.mark.parametrize("family", ["yolov8", "yolo11"])
def test_all_terms_stay_where_there_is_one(caplog, family: str) -> None:
    caplog.set_level(logging.INFO, logger="dfssd")
    assert checked(teacher=f"{family}s.yaml", student=f"{family}n.yaml") == ("cwd", "response_cls", "response_dfl")
    assert "aside" not in caplog.text


def test_term_that_was_asked_for_does_not_step_aside() -> None:
    with pytest.raises(UserError, match="which response_dfl needs; switch off with"):
        checked(recipe="dfssd-paper", teacher="yolo26s.yaml", student="yolo26n.yaml", **{"response_dfl.weight": 2})


def test_what_steps_aside_stays_so_on_resume(tmp_path: Path) -> None:
    given = {"data": "demo", "device": "cpu", "teacher": "yolo26s.yaml", "student": "yolo26n.yaml"}
    config = check_before_start(configure({**given, "project": str(tmp_path)}))
    folder = RunFolder.create(config, "the line")
    _, again = RunFolder.resume(configure({"resume": str(folder.path)}))
    assert tuple(again.terms) == tuple(config.terms) == ("cwd", "response_cls")


@pytest.mark.train
def test_pair_of_the_latest_family_trains_without_a_flag(squares: Path, tmp_path: Path) -> None:
    """The default recipe, from the command line to the report."""
    words = (
        f"data={squares} teacher=yolo26s.yaml student=yolo26n.yaml epochs=1 teacher_epochs=1 imgsz=32 batch=4 nbs=4 "
        f"pseudo.tau_low=0.001 pseudo.tau0=0.001 pseudo.tau_max=0.001 plots=false device=cpu workers=0 amp=false "
        f"project={tmp_path / 'runs'} name=latest data_dir={tmp_path / 'data'}"
    )
    assert main(words.split()) == 0
    folder = tmp_path / "runs" / "latest"
    record = BoxRecord.read(folder / "results.json")
    assert record.finished and "student" in record.test
    assert list(yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))["terms"]) == ["cwd", "response_cls"]
