"""Model selection: which network is shipped, what is recorded of it, and which files are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dfssd.errors import UserError
from dfssd.results.record import BoxRecord, MaskRecord
from dfssd.runs.model_selection import better_of, missing_labels_reason, select_baseline, select_better

EXAMPLES = Path(__file__).parents[1] / "results" / "without_schema"


@pytest.mark.parametrize(
    ("student", "baseline", "chosen"),
    [
        (0.3, 0.2, "student"),
        (0.2, 0.2, "student"),
        (0.1, 0.2, "baseline"),
        (0.1, None, "student"),
        (None, 0.2, "baseline"),
    ],
)
def test_better_of(student: float | None, baseline: float | None, chosen: str) -> None:
    got, why = better_of(student, baseline, "beauty")
    assert got == chosen and why and ("beauty" in why or None in {student, baseline})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    for role in ("student", "baseline"):
        (tmp_path / f"{role}.pt").write_text(role)
    return tmp_path


def with_scores(record: Any, **scores: float) -> Any:
    """The record with these validation scores of its networks."""
    trained = record.training["student"]
    record.training = {role: trained.model_copy(update={"val_score": score}) for role, score in scores.items()}
    return record


@pytest.mark.parametrize("kind", [BoxRecord, MaskRecord])
@pytest.mark.parametrize(
    ("student", "guarded", "shipped", "why"),
    [
        (0.6, True, "student", "0.600 against 0.500 of the baseline"),
        (0.4, True, "baseline", "0.400 against 0.500 of the baseline"),
        (0.4, False, "student", "guard=off"),
    ],
)
def test_better_network_is_shipped(weights: Path, kind: Any, student: float, guarded: bool, shipped: str, why: str):
    example = EXAMPLES / ("boxes.json" if kind is BoxRecord else "masks.json")
    record = with_scores(kind.read(example), student=student, baseline=0.5)
    select_better(weights, record, guarded=guarded)
    selection = record.guard
    assert selection.chosen == shipped and why in selection.why
    assert not guarded or selection.why.startswith(f"validation {record.measure} ")
    assert (selection.student_val_score, selection.baseline_val_score) == (student, 0.5)
    assert (weights / "student.pt").read_text() == shipped
    assert (weights / "student_trained.pt").exists() == (shipped == "baseline")


def test_student_without_a_baseline_is_shipped(weights: Path) -> None:
    record = with_scores(BoxRecord.read(EXAMPLES / "boxes.json"), student=0.01)
    select_better(weights, record, guarded=True)
    assert record.guard and record.guard.chosen == "student" and record.guard.baseline_val_score is None


def test_baseline_instead_of_a_student_that_cannot_be_taught(weights: Path) -> None:
    record = with_scores(BoxRecord.read(EXAMPLES / "boxes.json"), student=0.9, baseline=0.5)
    select_baseline(weights, record, "nothing was found")
    assert list(record.training) == ["baseline"] and record.distill is None
    assert record.guard and record.guard.why == "nothing was found" and record.guard.student_val_score is None
    assert (weights / "student.pt").read_text() == "baseline"
    (weights / "baseline.pt").unlink()
    with pytest.raises(UserError, match="nothing was found; with baseline=off"):
        select_baseline(weights, record, "nothing was found")


def test_teacher_that_accepts_nothing_has_nothing_to_teach() -> None:
    found = BoxRecord.read(EXAMPLES / "boxes.json").pseudo_labels
    assert found and found.settings and missing_labels_reason(found) is None and missing_labels_reason(None) is None
    silent = found.model_copy(update={"accepted": 0})
    assert "or lower pseudo.tau0" in str(missing_labels_reason(silent))
    blind = missing_labels_reason(silent.model_copy(update={"boxes": 0}))
    assert "found no box at all in" in str(blind) and "threshold" not in str(blind)
    target = found.settings.model_copy(update={"precision": 0.9})
    assert "or lower pseudo.precision" in str(missing_labels_reason(silent.model_copy(update={"settings": target})))
