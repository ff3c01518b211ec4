"""What docs/terms.md shows is true: the table has every term, and its example works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from dfssd.distillation.terms import TERMS
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
