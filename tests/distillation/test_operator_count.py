"""What a step of ours launches beyond the plain student's, against what Ultralytics' own distillation launches.

On a GPU small networks are limited by launches: an operator costs about 10 us there, and each time that the host waits
for the device, the device waits for the host afterwards. The counts are the same on every device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfssd.benchmark import speed
from dfssd.benchmark.operators import Operators, count_operators
from dfssd.benchmark.steps import OURS, PEER, STUDENT, TEACHER, open_steps

SMALL = {"imgsz": 64, "batch": 4, "device": "cpu", "amp": False, "workers": 0, "unlabeled_ratio": 3}
MOST = {"dfssd": 460, "tskd": 460, "tskd-paper": 900}
"""Operators of a step beyond those of the student's, by recipe."""
ORDINARY = 6
"""Steps after which a step measures no gradients any more and the self-test has seen the student move."""


def counts(folder: Path, **given: Any) -> dict[str, Operators]:
    """Operators of each step, with the optimizer of a GPU."""
    with open_steps(speed.checked({**SMALL, **given}), folder) as steps:
        for step in steps.trained.values():
            for _ in range(ORDINARY):
                step()
        found = {name: step.operators(as_on_gpu=True) for name, step in steps.trained.items()}
        return {**found, TEACHER: count_operators(steps.forward)}


@pytest.fixture(scope="module", params=["dfssd", "dfssd-paper"])
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Operators]:
    return counts(tmp_path_factory.mktemp(request.param), recipe=request.param)


def test_step_launches_no_more_than_the_distillation_of_ultralytics(counted: dict[str, Operators]) -> None:
    student, peer, ours = (counted[name].launched for name in (STUDENT, PEER, OURS))
    assert counted[TEACHER].launched < ours - student <= min(peer - student, MOST["dfssd"])


def test_host_waits_no_more_often_than_for_the_student_alone(counted: dict[str, Operators]) -> None:
    assert counted[OURS].waits <= counted[STUDENT].waits


@pytest.mark.parametrize("recipe", ["tskd", pytest.param("tskd-paper", marks=pytest.mark.long)])
def test_step_through_the_head_of_the_teacher_stays_within_its_limit(tmp_path: Path, recipe: str) -> None:
    found = counts(tmp_path, recipe=recipe)
    student, peer, ours = (found[name].launched for name in (STUDENT, PEER, OURS))
    assert peer - student < ours - student <= MOST[recipe]
    assert found[OURS].waits <= found[STUDENT].waits


def test_self_test_measures_in_the_first_steps_only(tmp_path: Path) -> None:
    """The counterpart: a step that measures gradients launches far more."""
    with open_steps(speed.checked({**SMALL}), tmp_path) as steps:
        step = steps.trained[OURS]
        first = step.operators(as_on_gpu=True)
        for _ in range(ORDINARY):
            step()
        assert first.launched > 1.5 * step.operators(as_on_gpu=True).launched
