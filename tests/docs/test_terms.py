"""What docs/terms.md shows is true: the table has every term, and its example works as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dfssd.cli import main
from dfssd.config import parse_arguments
from dfssd.distillation.terms import TERMS, find_term
from dfssd.runs.configure import configure
from tests.distillation.test_terms import SHAPE, leaves, make_batch, make_outputs

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "terms.md").read_text(encoding="utf-8")


def test_table_has_every_term_with_its_needs() -> None:
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| [^|]+ \| (used|-) \| (yes|-) \| [^|]+ \|$", TEXT, re.M)
    }
    assert sorted(rows) == sorted(TERMS)
    student, teacher, batch = make_outputs(False, 1), make_outputs(True, 2), make_batch()
    other = {**batch, "bboxes": batch["bboxes"].flip(1)}
    for name, (boxes, bins) in rows.items():
        assert (bins == "yes") == TERMS[name].needs_bins, name
        values = []
        for known in (batch, other):
            torch.manual_seed(0)
            values.append(TERMS[name](SHAPE)(student, teacher, known).item())
        assert (values[0] != values[1]) == (boxes == "used"), name


def test_example_of_a_new_term_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    made: dict = {"__name__": "at"}
    exec(compile(code, "docs/terms.md", "exec"), made)
    term = made["AttentionTransfer"](SHAPE)
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    term(student, teacher, make_batch()).backward()
    assert all(t.grad is None for t in leaves(teacher))
    assert all(f.grad is not None and f.grad.any() for f in student.feats)
    x = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 2.0]]]])
    assert made["attention_transfer"](x, x.flip(3)).item() == pytest.approx(2)
    assert made["attention_transfer"](x, 3 * x).item() == pytest.approx(0)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as pip installs it: the module, and the entry points of the ``pyproject.toml``."""
    toml = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    ((code,), (text,)) = (re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S) for kind in ("python", "toml"))
    described = toml.loads(text)
    project = described["project"]
    for module in described["tool"]["setuptools"]["py-modules"]:
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head, encoding="utf-8")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_terms", None)


def test_example_of_a_package_gives_the_term_a_name(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_term("at").__module__ == "my_terms"
    found = configure(parse_arguments(["data=demo", "recipe=distill", "at.weight=1"]))
    assert found.terms["at"]["weight"] == 1
    assert main(["train", "--help"]) == 0
    assert "\n  at: AT: where all channels together look." in capsys.readouterr().out
    assert "at" not in TERMS


def test_example_of_a_recipe_from_outside(site: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    recipe = site / "attention.yaml"
    recipe.write_text(text, encoding="utf-8")
    found = configure(parse_arguments(["data=demo", f"recipe={recipe}"]))
    assert list(found.terms) == ["my_terms:AttentionTransfer", "response_cls"]
    assert found.terms["my_terms:AttentionTransfer"]["schedule"] == "cosine"
