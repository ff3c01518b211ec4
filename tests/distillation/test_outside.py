"""Distillation terms and recipes from outside: a module in the working folder, and an installed package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dfssd.config import parse_arguments
from dfssd.distillation.terms import TERMS, find_term, installed_terms, is_term
from dfssd.errors import UserError
from dfssd.runs.configure import configure
from dfssd.runs.key_names import configure_data
from tests.configured import pair, student_settings
from tests.distillation.test_pair import model
from tests.distillation.test_terms import SHAPE, make_batch, make_outputs
from tests.tiny_detection import TINY

MODULE = '''
import torch
from dfssd.distillation.terms import Term
from dfssd.distillation.terms.base import FeatureTerm


class MeanGap(FeatureTerm):
    """Distance between the means of all maps."""

    def __init__(self, shape, *, power: float = 2.0):
        super().__init__(shape)
        if power <= 0:
            raise ValueError(f"power={power} must be positive")
        self.power = power

    def compare(self, level, student, teacher, batch):
        return (student.float().mean() - teacher.float().mean()).abs() ** self.power


class Nothing:
    pass


not_a_class = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a module of somebody who has a term; Python forgets it afterwards."""
    before = set(sys.modules)
    (tmp_path / "my_terms").mkdir()
    (tmp_path / "my_terms" / "gaps.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_terms.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("my_terms", "broken_terms")):
            del sys.modules[name]


def distribution(folder: Path, **terms: str) -> Path:
    """A package as pip installs it, whose entry points name these terms."""
    site = folder / "site"
    info = site / "gap_terms-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gap-terms\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"{name} = {place}" for name, place in terms.items()]
    (info / "entry_points.txt").write_text("\n".join(["[dfssd.terms]", *lines]) + "\n", encoding="utf-8")
    return site


def line(words: str) -> list[str]:
    return ["data=demo", "recipe=distill", *words.split()]


def problem(words: str) -> str:
    with pytest.raises(UserError) as caught:
        configure(parse_arguments(line(words)))
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_term_in_the_working_folder(folder: Path) -> None:
    given = parse_arguments(line("my_terms.gaps:MeanGap.weight=2 my_terms.gaps:MeanGap.power=1"))
    options = configure(given).terms["my_terms.gaps:MeanGap"]
    assert options["weight"] == 2 and options["power"] == 1 and options["schedule"] == "constant"
    term = find_term("my_terms.gaps:MeanGap")(SHAPE, **{"power": 1.0})
    value = term(make_outputs(False, 1), make_outputs(True, 2), make_batch())
    assert torch.isfinite(value) and value > 0


def test_checkpoints_and_columns_know_it_by_its_class(folder: Path) -> None:
    name = "my_terms.gaps:MeanGap"
    student_settings(terms={name: {"weight": 1.0}})
    assert "my_terms.gaps" in sys.modules, "a checkpoint of the training can be read from here on"
    terms = {name: {"weight": 2.0, "schedule": "constant", "power": 1.0}}
    built = pair(model(TINY), model(TINY), terms=terms)
    assert built.projector["MeanGap"].power == 1 and built.weight("MeanGap") == 2
    assert [key for key in built.state_dict() if key.startswith("projector.MeanGap.align.")]


def test_data_is_checked_without_importing_the_term(folder: Path) -> None:
    given = parse_arguments(line("broken_terms:Gap.weight=2 broken_terms:Gap.anything=1"))
    assert configure_data(given)["data"] == "demo"
    assert "broken_terms" not in sys.modules


def test_recipe_beside_it(folder: Path) -> None:
    (folder / "gap.yaml").write_text(
        "student_start: own\nterms:\n  my_terms.gaps:MeanGap: {weight: 0.5, schedule: cosine}\n", encoding="utf-8"
    )
    config = configure({"data": "demo", "recipe": str(folder / "gap.yaml"), "my_terms.gaps:MeanGap.power": 3})
    assert config.terms == {"my_terms.gaps:MeanGap": {"weight": 0.5, "schedule": "cosine", "share": 0.2, "power": 3}}


def test_installed_term_has_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_term("gap")
    monkeypatch.syspath_prepend(distribution(folder, gap="my_terms.gaps:MeanGap"))
    assert is_term("gap") and set(installed_terms()) == {*TERMS, "gap"}
    assert configure(parse_arguments(line("gap.weight=1 gap.power=4"))).terms["gap"]["power"] == 4
    assert configure_data(parse_arguments(line("gap.weight=1")))["data"] == "demo"
    assert problem("gap.weight=1 gap.pover=4") == "unknown key 'gap.pover'; did you mean 'gap.power'?"


def test_name_that_is_taken_and_package_that_is_broken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(distribution(folder, cwd="my_terms.gaps:MeanGap", bad="broken_terms:Gap"))
    assert find_term("cwd") is TERMS["cwd"] and set(installed_terms()) == set(TERMS)
    assert "the distillation term bad cannot be imported" in capsys.readouterr().err
    configure(parse_arguments(line("cwd.weight=1")))
    assert "cwd is dfssd's own distillation term" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("my_terms.gaps:MeanGap.weight=1 my_terms.gaps:MeanGap.power=-1", "my_terms.gaps:MeanGap.power=-1 must be pos"),
        ("my_terms.gaps:MeanGap.weight=-1", "my_terms.gaps:MeanGap.weight=-1 must be a number >= 0"),
        (
            "gone:Gap.weight=1",
            "the distillation term gone:Gap cannot be imported (ModuleNotFoundError: ",
        ),
        (
            "broken_terms:Gap.weight=1",
            "broken_terms:Gap cannot be imported (ModuleNotFoundError: ",
        ),
        ("my_terms.gaps:Gone.weight=1", "my_terms.gaps:Gone cannot be imported (AttributeError: "),
        ("my_terms.gaps:Nothing.weight=1", "my_terms.gaps:Nothing is no distillation term: it must be a subclass of"),
        ("my_terms.gaps:not_a_class.weight=1", "my_terms.gaps:not_a_class is no distillation term"),
        ("my_terms.gaps.weight=1", "unknown key 'my_terms.gaps.weight'"),
    ],
)
def test_mistakes_are_one_line(folder: Path, words: str, message: str) -> None:
    assert message in problem(f"pkd.weight=1 {words}")
